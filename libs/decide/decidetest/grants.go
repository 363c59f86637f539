package decidetest

import (
	"context"
	"sync"

	"usher.internal/libs/decide"
)

// Grants is decide.Grants in memory. What was kept a moment ago is what was kept at all.
type Grants struct {
	mu   sync.Mutex
	down bool
	kept map[grantKey]decide.Grant
}

type grantKey struct {
	check string
	decide.For
}

var _ decide.Grants = (*Grants)(nil)

// NewGrants is empty and works.
func NewGrants() *Grants { return &Grants{kept: map[grantKey]decide.Grant{}} }

// Down makes every call fail, or work again.
func (g *Grants) Down(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
}

// Find implements decide.Grants; it gives ended grants too, which an engine must not believe.
func (g *Grants) Find(_ context.Context, f decide.For, running bool) ([]decide.Grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return nil, ErrDown
	}
	var found []decide.Grant
	for k, kept := range g.kept {
		if k.For == f || running && k.Who == f.Who && k.Stream == f.Stream {
			found = append(found, kept)
		}
	}
	return found, nil
}

// Recent implements decide.Grants.
func (g *Grants) Recent(f decide.For) []decide.Grant {
	found, _ := g.Find(context.Background(), f, false) // whoever is down remembers nothing
	return found
}

// Keep implements decide.Grants.
func (g *Grants) Keep(_ context.Context, grant decide.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return ErrDown
	}
	key := grantKey{check: grant.Check, For: grant.For}
	if grant.From.IsValid() {
		old := key
		old.IP = grant.From
		delete(g.kept, old)
		grant.From = decide.Grant{}.From
	}
	g.kept[key] = grant
	return nil
}

// Revoke ends the grants of a user.
func (g *Grants) Revoke(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, kept := range g.kept {
		if kept.User == user {
			delete(g.kept, k)
		}
	}
}
