package decidetest

import (
	"context"
	"sync"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/subscriber"
)

// Subscribers is decide.Subscribers in memory.
type Subscribers struct {
	mu       sync.Mutex
	accounts []*subscriber.Account
	packages map[string]subscriber.Packages
	away     time.Duration
	down     bool
}

var _ decide.Subscribers = (*Subscribers)(nil)

// NewSubscribers is empty and works.
func NewSubscribers() *Subscribers {
	return &Subscribers{packages: map[string]subscriber.Packages{}}
}

// Add adds an account.
func (s *Subscribers) Add(a subscriber.Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts = append(s.accounts, &a)
}

// Package adds a package to a realm. It panics if a pattern is wrong.
func (s *Subscribers) Package(realm, name string, streams ...string) {
	p, err := subscriber.NewPackage(name, streams)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packages[realm] == nil {
		s.packages[realm] = subscriber.Packages{}
	}
	s.packages[realm][name] = p
}

// Down makes every call fail, or work again.
func (s *Subscribers) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Away says for how long accounts have been known from memory alone, 0 for not at all.
func (s *Subscribers) Away(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = d
}

// ByToken implements decide.Subscribers.
func (s *Subscribers) ByToken(_ context.Context, realm string, token access.Key) (decide.Found, error) {
	return s.find(func(a *subscriber.Account) bool { return a.Realm == realm && a.Token == token && !token.IsZero() })
}

// ByLogin implements decide.Subscribers.
func (s *Subscribers) ByLogin(_ context.Context, realm, login string) (decide.Found, error) {
	return s.find(func(a *subscriber.Account) bool { return a.Realm == realm && a.Login == login && login != "" })
}

func (s *Subscribers) find(is func(*subscriber.Account) bool) (decide.Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return decide.Found{}, ErrDown
	}
	for _, a := range s.accounts {
		if is(a) {
			return decide.Found{Account: a, Away: s.away}, nil
		}
	}
	return decide.Found{}, nil
}

// Packages implements decide.Subscribers.
func (s *Subscribers) Packages(_ context.Context, realm string) (subscriber.Packages, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, ErrDown
	}
	return s.packages[realm], nil
}
