package pgstore

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"usher.internal/libs/decide"
)

// Grants is decide.Grants: what middlewares allowed, for every worker. A small memory stands in
// front of the table. What is in it is believed for less than a second without asking, so that
// a revocation needs to tell nobody, and longer only while Postgres is away, when nothing can
// be revoked either.
type Grants struct {
	store *Store
	finds *batcher[find, []decide.Grant]
	keeps *batcher[decide.Grant, struct{}]

	mu   sync.Mutex // held while an entry of seen is read and replaced
	seen *otter.Cache[decide.For, *remembered]
}

var _ decide.Grants = (*Grants)(nil)

const (
	// grantFresh is how long memory is believed: revocation is promised within a second.
	grantFresh = 750 * time.Millisecond
	// grantsCached bounds the viewers whose grants are remembered: about 300 bytes each.
	grantsCached = 100_000
)

// remembered is what is known of the grants for one viewer, stream and address. It is immutable.
type remembered struct {
	complete time.Time // when all of them were read; zero: never
	grants   []recalled
}

type recalled struct {
	decide.Grant
	read time.Time
}

type find struct {
	decide.For
	running bool
}

// Grants are kept in this store; they are found and kept while Run runs.
func (s *Store) Grants() *Grants {
	g := &Grants{
		store: s,
		seen:  otter.Must(&otter.Options[decide.For, *remembered]{MaximumSize: grantsCached}),
	}
	g.finds, g.keeps = newBatcher(g.read), newBatcher(g.write)
	return g
}

// Run carries questions to Postgres until ctx ends.
func (g *Grants) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { g.finds.run(ctx) })
	both.Go(func() { g.keeps.run(ctx) })
	both.Wait()
	return nil
}

// Find implements decide.Grants.
func (g *Grants) Find(ctx context.Context, f decide.For, running bool) ([]decide.Grant, error) {
	began := time.Now()
	known, _ := g.seen.GetIfPresent(f)
	if known != nil && len(known.grants) > 0 && began.Sub(known.complete) < grantFresh {
		return known.since(time.Time{}), nil
	}
	found, err := g.finds.do(ctx, find{For: f, running: running})
	if err != nil {
		if known != nil && len(known.grants) > 0 {
			return known.since(time.Time{}), nil // the best that anybody can tell now
		}
		return nil, fmt.Errorf("looking for grants: %w", err)
	}
	g.learn(f, began, found)
	return found, nil
}

// Recent implements decide.Grants.
func (g *Grants) Recent(f decide.For) []decide.Grant {
	known, ok := g.seen.GetIfPresent(f)
	if !ok {
		return nil
	}
	return known.since(time.Now().Add(-grantFresh))
}

// Keep implements decide.Grants.
func (g *Grants) Keep(ctx context.Context, grant decide.Grant) error {
	if _, err := g.keeps.do(ctx, grant); err != nil {
		return fmt.Errorf("keeping a grant: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	next := &remembered{}
	if old, ok := g.seen.GetIfPresent(grant.For); ok {
		next.complete = old.complete
		next.grants = slices.DeleteFunc(slices.Clone(old.grants), func(r recalled) bool { return r.Check == grant.Check })
	}
	if grant.From.IsValid() {
		g.seen.Invalidate(decide.For{Who: grant.Who, Stream: grant.Stream, IP: grant.From})
		grant.From = netip.Addr{}
	}
	next.grants = append(next.grants, recalled{Grant: grant, read: time.Now()})
	g.seen.Set(grant.For, next)
	return nil
}

// learn remembers what was found for f by a question that began then. What was kept since is
// newer than that.
func (g *Grants) learn(f decide.For, began time.Time, found []decide.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, _ := g.seen.GetIfPresent(f)
	if old == nil && len(found) == 0 {
		return
	}
	next := &remembered{complete: began}
	if old != nil {
		for _, r := range old.grants {
			if r.read.After(began) {
				next.grants = append(next.grants, r)
			}
		}
	}
	for _, grant := range found {
		newer := slices.ContainsFunc(next.grants, func(r recalled) bool { return r.Check == grant.Check })
		if grant.For == f && !newer {
			next.grants = append(next.grants, recalled{Grant: grant, read: began})
		}
	}
	if len(next.grants) == 0 {
		g.seen.Invalidate(f)
		return
	}
	g.seen.Set(f, next)
}

// since are the grants that were read after t and hold still.
func (r *remembered) since(t time.Time) []decide.Grant {
	out := make([]decide.Grant, 0, len(r.grants))
	for _, one := range r.grants {
		if one.read.After(t) {
			out = append(out, one.Grant)
		}
	}
	return out
}
