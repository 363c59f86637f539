package edge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/control"
)

const (
	// maxKicks bounds the sessions of one node that are being ended there.
	maxKicks = 4096
	// kickers call side by side.
	kickers = 4
	// maxTries is how often one session is ended at most.
	maxTries = 5
	// kickRetry is the wait after the first failed call; it doubles.
	kickRetry = time.Second
	// kickMemory is how long a session that was ended is looked for in lists, and how long one
	// is left alone that could not be ended.
	kickMemory = 10 * time.Minute
)

// kicks are the sessions of one node that are being ended there.
type kicks struct {
	mu   sync.Mutex // guards all below
	by   map[string]*kick
	wake chan struct{}
}

// kick is one session on its way out; guarded by kicks.mu.
type kick struct {
	id     string
	key    access.Key
	reason access.CloseReason
	begun  instant
	due    instant // of the next call, 0 while none is
	sent   instant // when the node said yes, 0 if it did not
	seen   instant // begin of the last list that showed it
	tries  int
	busy   bool
	given  bool // up: the node is left alone with it for a while
}

func newKicks() *kicks { return &kicks{by: make(map[string]*kick), wake: make(chan struct{}, 1)} }

// add begins to end a session; false if there is no room.
func (t *kicks) add(id string, k access.Key, reason access.CloseReason, now instant) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[id] != nil {
		return true
	}
	if len(t.by) >= maxKicks {
		t.expire(now)
	}
	if len(t.by) >= maxKicks {
		return false
	}
	t.by[id] = &kick{id: id, key: k, reason: reason, begun: now, due: now}
	nudge(t.wake)
	return true
}

// see notes that a list shows the session; false if it is not being ended.
func (t *kicks) see(id string, begin instant) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.by[id]
	if k != nil {
		k.seen = begin
	}
	return k != nil
}

// take gives up to kickers that are due, and how long it is to the next, 0 for never.
func (t *kicks) take(now instant) (list []*kick, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.by {
		switch {
		case k.busy || k.due == 0:
		case k.due <= now && len(list) < kickers:
			k.busy = true
			list = append(list, k)
		default:
			if d := max(k.due.since(now), time.Millisecond); wait == 0 || d < wait {
				wait = d
			}
		}
	}
	return list, wait
}

// done notes how a call went. over says that no other will follow without a list that shows the session.
func (t *kicks) done(k *kick, err error, now instant) (over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k.busy, k.due = false, 0
	k.tries++
	switch {
	case errors.Is(err, control.ErrGone):
		delete(t.by, k.id)
	case err == nil:
		k.sent = now
	case k.tries >= maxTries:
		k.given = true
		return true
	default:
		k.due = now.add(kickRetry << (k.tries - 1))
	}
	return false
}

func (t *kicks) drop(k *kick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[k.id] == k {
		delete(t.by, k.id)
	}
}

// confirm looks for those that the node has ended in a whole list, which began at begin: who is
// still on it is ended once more.
func (t *kicks) confirm(begin, now instant, tell func(k *kick, result string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for id, k := range t.by {
		switch {
		case k.busy || !k.given && (k.sent == 0 || k.sent >= begin):
			// No list can tell yet.
		case k.seen < begin:
			delete(t.by, id)
			tell(k, "confirmed")
		case k.given:
			// It plays on, as it was told.
		case k.tries >= maxTries:
			k.given = true
			tell(k, "failed")
		default:
			k.sent, k.due = 0, now
			nudge(t.wake)
		}
	}
}

// unlisted forgets what is over, where no list can be had.
func (t *kicks) unlisted(now instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
}

// expire forgets what is over; the lock is held.
func (t *kicks) expire(now instant) {
	for id, k := range t.by {
		if !k.busy && now.since(k.begun) >= kickMemory {
			delete(t.by, id)
		}
	}
}

// kick ends sessions at the node until ctx ends.
func (p *poller) kick(ctx context.Context) {
	for {
		list, wait := p.kicks.take(p.s.now())
		var calls sync.WaitGroup
		for _, k := range list {
			calls.Go(func() { p.call(ctx, k) })
		}
		calls.Wait()
		if len(list) > 0 {
			continue
		}
		var next <-chan time.Time
		if wait > 0 {
			next = time.After(wait)
		}
		select {
		case <-p.kicks.wake:
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

// call ends one session. The id may be somebody else's by now: then he stays.
func (p *poller) call(ctx context.Context, k *kick) {
	if p.s.table.get(k.key) != nil {
		p.kicks.drop(k)
		return
	}
	err := p.server.Kick(ctx, k.id)
	over := p.kicks.done(k, err, p.s.now())
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, control.ErrGone):
		p.kicked(ctx, k, "gone", nil)
	case err == nil:
		p.kicked(ctx, k, "sent", nil)
	case over:
		p.kicked(ctx, k, "failed", err)
	default:
		p.kicked(ctx, k, "retried", err)
	}
}

// kicked counts what became of a session that was to be ended, and says so where it plays on.
func (p *poller) kicked(ctx context.Context, k *kick, result string, err error) {
	n := p.node.Load()
	p.s.metrics.kicks.WithLabelValues(n.Caller, result).Inc()
	level := slog.LevelDebug
	if result == "failed" {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String(telemetry.Node, n.Name), slog.String(telemetry.Result, result), slog.String(telemetry.Reason, string(k.reason))}
	if err != nil {
		attrs = append(attrs, slog.Any(telemetry.Error, err))
	}
	p.s.log.LogAttrs(ctx, level, "a session is ended at its node", attrs...)
}

// end begins to end a session at the node, if the policy wants that. Where the policy is only tried
// out nobody is ended for being one too many.
func (p *poller) end(id, stream string, k access.Key, reason access.CloseReason) {
	if !p.conf.Kick || reason == access.CloseEvicted && p.tried(stream) {
		return
	}
	if !p.kicks.add(id, k, reason, p.s.now()) {
		p.s.metrics.kicks.WithLabelValues(p.node.Load().Caller, "dropped").Inc()
	}
}

// tried says whether the policy is only tried out on the stream.
func (p *poller) tried(stream string) bool {
	if p.node.Load().Shadow {
		return true
	}
	v := p.s.view.Load()
	if v == nil {
		return false
	}
	_, rule := v.find(stream)
	return rule.shadow
}

// expel ends a session at its node, where that can be told. It is out of the table already.
func (s *Service) expel(ses *session, reason access.CloseReason) {
	if ses.caller() == "" {
		return
	}
	if p := s.pollers.of(ses.node.Value()); p != nil {
		p.end(ses.caller(), ses.stream.Value(), ses.key, reason)
	}
}
