package subscriber

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/maypok86/otter/v2"

	"usher.internal/libs/access"
)

const (
	// passwordMemory is how long a verified pair is believed after its last use, and
	// passwordsKept how many are: about 250 bytes each.
	passwordMemory = time.Hour
	passwordsKept  = 200_000
	// passwordWait bounds how long a check waits for its turn at the processor.
	passwordWait = 500 * time.Millisecond
)

// ErrBusy means that more passwords are being checked than processors can.
var ErrBusy = errors.New("too many passwords are being checked")

// Passwords checks passwords with as many processors as it may take, half of them, and
// remembers the outcome under a keyed hash of login and password. It is safe for concurrent use.
type Passwords struct {
	keyer *access.Keyer
	known *otter.Cache[access.Key, verified]
	turns chan struct{}
	// nobody is the hash that unknown logins are held against, so that they take as long.
	nobody string
}

// verified is what became of a password; it stands as long as the stored hash is the same.
type verified struct {
	hash string
	good bool
}

// NewPasswords makes an empty memory under the cluster's key.
func NewPasswords(k *access.Keyer) *Passwords {
	return &Passwords{
		keyer: k, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), nobody: noPassword(),
		known: otter.Must(&otter.Options[access.Key, verified]{
			MaximumSize:      passwordsKept,
			ExpiryCalculator: otter.ExpiryAccessing[access.Key, verified](passwordMemory),
		}),
	}
}

// Check says whether the password is that of the login, whose stored hash is given, "" for a
// login that does not exist or has no password: that takes as long and is never good. The error is
// ErrBusy, ErrHash, or ctx's.
func (p *Passwords) Check(ctx context.Context, realm, login, hash, password string) (bool, error) {
	exists := hash != ""
	if !exists {
		hash = p.nobody
	}
	if len(password) > MaxPassword {
		password = password[:MaxPassword+1] // still wrong, and costs no more than a right one
	}
	key := p.keyer.Key("password", realm, login, password)
	if v, ok := p.known.GetIfPresent(key); ok && v.hash == hash {
		return v.good && exists, nil
	}
	wait := time.NewTimer(passwordWait)
	defer wait.Stop()
	select {
	case p.turns <- struct{}{}:
	case <-wait.C:
		return false, ErrBusy
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { <-p.turns }()
	// An equal question may have been answered while this one waited.
	if v, ok := p.known.GetIfPresent(key); ok && v.hash == hash {
		return v.good && exists, nil
	}
	good, err := CheckPassword(hash, password)
	if err != nil {
		return false, err
	}
	p.known.Set(key, verified{hash: hash, good: good})
	return good && exists, nil
}
