// Package policyfile takes the operator's policy from a file into force: it checks
// it as the workers will read it, and stores it as a numbered revision. The recorder
// spreads what is stored.
package policyfile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/decide"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
)

// ErrSecrets means that the policy is right but a secret that it refers to cannot be
// read on this machine, so that its examples could not be run.
var ErrSecrets = errors.New("a secret cannot be read here")

// ErrNoKey means that the policy lists tokens, and they may be stored as fingerprints under
// the cluster's key alone, which is not at hand.
var ErrNoKey = errors.New("the policy lists tokens, which are stored as fingerprints under the cluster's key: give its file with --cluster-key")

// Store is where revisions are kept; *pgstore.Store is one.
type Store interface {
	ApplyPolicy(ctx context.Context, source, author, comment string) (revision int64, err error)
	CurrentPolicy(ctx context.Context) (*pgstore.PolicyRow, error)
	TryPolicy(ctx context.Context, source, author, comment string, lasts time.Duration) (pgstore.Trial, error)
	FailedTrial(ctx context.Context, source string) (int64, error)
	SeenPolicy(ctx context.Context, source, author string) (bool, error)
}

// Policy is a policy that was checked, and the engine that decides by it. Close it.
type Policy struct {
	Snapshot *policy.Snapshot
	// Engine is nil after ErrSecrets.
	Engine *decide.Engine

	orders atomic.Pointer[directive.Set]
	keyer  *access.Keyer
	sealed string // what is stored: the text, with fingerprints in place of tokens; "" for ErrNoKey
}

// Under has the engine judge under these bans and overrides from now on.
func (p *Policy) Under(orders *directive.Set) { p.orders.Store(orders) }

// Close gives back what the engine holds.
func (p *Policy) Close() {
	if p.Engine != nil {
		p.Engine.Close()
	}
}

// Read reads a file of at most config.MaxSize bytes.
func Read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return data, nil
}

// Check parses the policy, opens its checks and runs its examples. name stands in the
// messages. The error is config.Problems for what is wrong with the text, or wraps
// ErrSecrets, and then the Policy has no engine. keyer may be nil outside of a cluster.
func Check(ctx context.Context, name string, data []byte, keyer *access.Keyer) (*Policy, error) {
	snapshot, err := policy.Parse(name, data, decide.Kinds())
	if err != nil {
		return nil, err
	}
	mine := keyer == nil
	if mine {
		if keyer, err = anyKeyer(); err != nil {
			return nil, err
		}
	}
	text, err := policy.Seal(name, data, keyer)
	if err != nil {
		return nil, err
	}
	p := &Policy{Snapshot: snapshot, keyer: keyer, sealed: string(text)}
	if mine && p.sealed != string(data) {
		p.sealed = "" // under a key that nobody has
	}
	if p.Engine, err = p.engine(nil); err != nil {
		return p, fmt.Errorf("%w: %w", ErrSecrets, err)
	}
	if problems := p.Engine.RunExamples(ctx); len(problems) > 0 {
		p.Close()
		return nil, config.Problems(problems)
	}
	return p, nil
}

// Know lets dry runs ask for the cluster's own subscribers, which Check does without.
func (p *Policy) Know(s decide.Subscribers) error {
	if p.Engine == nil {
		return nil
	}
	e, err := p.engine(s)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSecrets, err)
	}
	p.Engine.Close()
	p.Engine = e
	return nil
}

func (p *Policy) engine(s decide.Subscribers) (*decide.Engine, error) {
	return decide.New(p.Snapshot, decide.Deps{Keyer: p.keyer, Claims: firstSeen{}, Directives: p.orders.Load, Subscribers: s})
}

// anyKeyer serves where no stored key is compared with: examples and dry runs.
func anyKeyer() (*access.Keyer, error) {
	secret := make([]byte, access.ClusterKeySize)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return access.NewKeyer(secret)
}

// firstSeen is decide.Claims for dry runs: each value counts as the first one seen, and
// nothing is remembered.
type firstSeen struct{}

// First implements decide.Claims.
func (firstSeen) First(_ context.Context, _ access.Key, value string) (string, error) {
	return value, nil
}
