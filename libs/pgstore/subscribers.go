package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/maypok86/otter/v2"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/subscriber"
)

const (
	// accountsCached bounds the subscribers, and the tokens of nobody, that are kept in memory:
	// about half a kilobyte each (BenchmarkSubscribers).
	accountsCached = 200_000
	// pollEvery is how often changes are asked for; what is remembered is believed for
	// confirmedFor after the last answer.
	pollEvery    = 250 * time.Millisecond
	confirmedFor = time.Second
	// lookWithin bounds one look at a subscriber, pollWithin one at the changes.
	lookWithin = 250 * time.Millisecond
	pollWithin = time.Second
	// looksAtOnce bounds the connections that looks at subscribers take from the ledger.
	looksAtOnce = 4
	// doubtAfter is how old a memory becomes before it is compared with the table, should a
	// change ever have been missed.
	doubtAfter = 10 * time.Minute
)

// Subscribers is decide.Subscribers: known ones from memory, others from Postgres. Memory is
// believed while Run runs and sees all changes.
type Subscribers struct {
	store *Store
	known *otter.Cache[accountKey, memory]
	turns chan struct{}
	now   func() time.Time

	mu sync.RWMutex // guards all below, and known against a late write of what has changed
	// generation counts the changes that were seen: what was read before one is not kept.
	generation uint64
	// whole is the generation of the last change that named nobody: older memories must be
	// confirmed one by one.
	whole     uint64
	confirmed time.Time // when Postgres was last seen to have no other changes
	seen      bool      // confirmed was ever set by Run
	failures  int       // looks at the changes that failed in a row
	away      bool      // two did: nobody is looked at until one succeeds
	packages  map[string]subscriber.Packages
}

var _ decide.Subscribers = (*Subscribers)(nil)

// accountKey is a token's fingerprint or a login.
type accountKey struct {
	realm string
	token access.Key
	login string
}

// memory is what the table said; account is nil for a token or login of nobody.
type memory struct {
	account    *subscriber.Account
	at         time.Time
	generation uint64
}

// Subscribers are read from this store; they are remembered while Run runs.
func (s *Store) Subscribers() *Subscribers {
	return &Subscribers{
		store: s, now: time.Now, turns: make(chan struct{}, looksAtOnce),
		known: otter.Must(&otter.Options[accountKey, memory]{MaximumSize: accountsCached}),
	}
}

// ByToken implements decide.Subscribers.
func (s *Subscribers) ByToken(ctx context.Context, realm string, token access.Key) (decide.Found, error) {
	return s.find(ctx, accountKey{realm: realm, token: token})
}

// ByLogin implements decide.Subscribers.
func (s *Subscribers) ByLogin(ctx context.Context, realm, login string) (decide.Found, error) {
	return s.find(ctx, accountKey{realm: realm, login: login})
}

func (s *Subscribers) find(ctx context.Context, k accountKey) (decide.Found, error) {
	m, ok := s.known.GetIfPresent(k)
	now := s.now()
	s.mu.RLock()
	generation, whole, confirmed, seen, away := s.generation, s.whole, s.confirmed, s.seen, s.away
	s.mu.RUnlock()
	fresh := seen && !away && now.Sub(confirmed) < confirmedFor
	if ok && fresh && m.generation >= whole && now.Sub(m.at) < doubtAfter {
		return decide.Found{Account: m.account}, nil
	}
	var a *subscriber.Account
	err := errAway
	if !away {
		a, err = s.look(ctx, k)
	}
	if err == nil && a != nil && seen {
		err = s.complete(ctx, a, generation)
	}
	switch {
	case err == nil:
		if fresh {
			s.keep(k, memory{account: a, at: now, generation: generation})
		}
		return decide.Found{Account: a}, nil
	case ok && m.account != nil:
		return decide.Found{Account: m.account, Away: max(now.Sub(confirmed), time.Nanosecond)}, nil
	}
	// Nobody knows whether a token of nobody has found somebody meanwhile.
	return decide.Found{}, err
}

// complete reads the packages if the account has one that is newer than the last look at
// changes: whoever was given a package a moment ago must not be refused.
func (s *Subscribers) complete(ctx context.Context, a *subscriber.Account, generation uint64) error {
	s.mu.RLock()
	of := s.packages[a.Realm]
	s.mu.RUnlock()
	missing := slices.ContainsFunc(a.Packages, func(name string) bool { return of[name] == nil })
	if !missing {
		return nil
	}
	all, err := s.store.packages(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation == generation {
		s.packages = all
	}
	return nil
}

var errAway = errors.New("postgres is away")

// keep remembers what was read, unless anything changed since before it was.
func (s *Subscribers) keep(k accountKey, m memory) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.generation == m.generation {
		s.known.Set(k, m)
	}
}

const accountColumns = `s.realm, s.user_id, s.name, s.token, COALESCE(s.login, ''), COALESCE(s.password, ''), s.sessions, s.expires_at,
       s.networks, s.blocked_at,
       ARRAY(SELECT p.package FROM usher.subscriber_package p
              WHERE p.realm = s.realm AND p.user_id = s.user_id ORDER BY p.package)`

const (
	accountByTokenSQL = `
SELECT ` + accountColumns + `
  FROM usher.subscriber s
 WHERE s.realm = @realm AND s.token = @token`
	accountByLoginSQL = `
SELECT ` + accountColumns + `
  FROM usher.subscriber s
 WHERE s.realm = @realm AND s.login = @login`
)

// look reads one account, nil if there is none.
func (s *Subscribers) look(ctx context.Context, k accountKey) (*subscriber.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("reading a subscriber: %w", context.Cause(ctx))
	}
	sql := accountByLoginSQL
	if !k.token.IsZero() {
		sql = accountByTokenSQL
	}
	rows, err := s.store.pool.Query(ctx, sql, pgx.NamedArgs{"realm": k.realm, "token": idOf(k.token), "login": k.login})
	if err != nil {
		return nil, fmt.Errorf("reading a subscriber: %w", unavailable(err))
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanAccount)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a subscriber: %w", unavailable(err))
	}
	return a, nil
}

func scanAccount(row pgx.CollectableRow) (*subscriber.Account, error) {
	var a subscriber.Account
	var token pgtype.UUID
	var expires, blocked *time.Time
	var networks []netip.Prefix
	err := row.Scan(&a.Realm, &a.User, &a.Name, &token, &a.Login, &a.Password, &a.Sessions, &expires, &networks, &blocked, &a.Packages)
	if err != nil {
		return nil, err
	}
	a.Token = token.Bytes
	if len(networks) > 0 {
		a.Networks = networks
	}
	if expires != nil {
		a.Expires = *expires
	}
	if blocked != nil {
		a.Blocked = *blocked
	}
	// Two hundred thousand accounts share a few words.
	a.Realm = unique.Make(a.Realm).Value()
	for i, name := range a.Packages {
		a.Packages[i] = unique.Make(name).Value()
	}
	return &a, nil
}
