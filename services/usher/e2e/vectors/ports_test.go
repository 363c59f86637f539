package vectors_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
)

// clock shows the time of the cases. It runs from the first question on, and is put forward.
type clock struct {
	mu    sync.Mutex // guards all below
	start time.Time
	later time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start.IsZero() {
		return decidetest.Now
	}
	return decidetest.Now.Add(c.later + time.Since(c.start))
}

// put sets it to the time of the question.
func (c *clock) put(q *decidetest.Question) {
	before := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start.IsZero() {
		c.start = time.Now()
	}
	c.later += q.Now(before).Sub(before)
}

// ports are what a worker keeps in Postgres, which can be told to be away. Postgres has its own
// clock: all times are moved by the same span on their way there and back.
type ports struct {
	claims decide.Claims
	known  decide.Known
	grants decide.Grants
	ahead  time.Duration // of Postgres's clock over that of the cases

	claimsDown, knownDown, grantsDown atomic.Bool

	mu    sync.Mutex // guards words
	words []word     // that were said and may not be written yet
}

type word struct {
	check string
	who   access.Key
	at    time.Time
}

// settled says whether Postgres has every word that was said: they are written a moment later.
func (p *ports) settled(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.words = slices.DeleteFunc(p.words, func(w word) bool {
		written, ok, err := p.known.Allowed(ctx, w.check, w.who)
		return err == nil && ok && !written.At.Before(w.at.Truncate(time.Microsecond))
	})
	return len(p.words) == 0
}

type (
	claims struct{ *ports }
	known  struct{ *ports }
	grants struct{ *ports }
)

var (
	_ decide.Claims = claims{}
	_ decide.Known  = known{}
	_ decide.Grants = grants{}
)

// First implements decide.Claims.
func (c claims) First(ctx context.Context, name access.Key, value string) (string, error) {
	if c.claimsDown.Load() {
		return "", decidetest.ErrDown
	}
	return c.claims.First(ctx, name, value)
}

// Allowed implements decide.Known.
func (k known) Allowed(ctx context.Context, check string, who access.Key) (decide.Word, bool, error) {
	if k.knownDown.Load() {
		return decide.Word{}, false, decidetest.ErrDown
	}
	w, ok, err := k.known.Allowed(ctx, check, who)
	w.At = moved(w.At, -k.ahead)
	return w, ok, err
}

// Remember implements decide.Known.
func (k known) Remember(check string, who access.Key, w decide.Word) {
	w.At = moved(w.At, k.ahead)
	k.mu.Lock()
	k.words = append(k.words, word{check, who, w.At})
	k.mu.Unlock()
	k.known.Remember(check, who, w)
}

// Find implements decide.Grants.
func (g grants) Find(ctx context.Context, f decide.For, running bool) ([]decide.Grant, error) {
	if g.grantsDown.Load() {
		return nil, decidetest.ErrDown
	}
	found, err := g.grants.Find(ctx, f, running)
	return g.moved(found), err
}

// Recent implements decide.Grants.
func (g grants) Recent(f decide.For) []decide.Grant {
	if g.grantsDown.Load() {
		return nil
	}
	return g.moved(g.grants.Recent(f))
}

// Keep implements decide.Grants.
func (g grants) Keep(ctx context.Context, grant decide.Grant) error {
	if g.grantsDown.Load() {
		return decidetest.ErrDown
	}
	return g.grants.Keep(ctx, shifted(grant, g.ahead))
}

func (g grants) moved(found []decide.Grant) []decide.Grant {
	out := make([]decide.Grant, len(found))
	for i := range found {
		out[i] = shifted(found[i], -g.ahead)
	}
	return out
}

func shifted(g decide.Grant, d time.Duration) decide.Grant {
	g.At, g.Until, g.Recheck = moved(g.At, d), moved(g.Until, d), moved(g.Recheck, d)
	return g
}

func moved(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}
