package edge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/control"
)

const (
	// maxStrays bounds the sessions of one node that are followed without being known here.
	maxStrays = 1 << 18
	// renewStrays is how often workers are told that one still plays.
	renewStrays = 50 * time.Second
	// lingers is how long a session may be on its node's list after its device zapped away from it:
	// servers keep a session for some segments after its last request.
	lingers = 90 * time.Second
	// quiet is how long a changed number of sessions that never asked is not logged again.
	quiet = time.Minute
	// adminToken begins the tokens with which an administrator of a Flussonic watches without asking.
	adminToken = "ADM1-"
)

// strays are the sessions on a node's list that this edge does not know: opened at another edge, or
// before this one started, or ended already, or never asked about. A worker tells which.
type strays struct {
	mu   sync.Mutex // guards all below
	by   map[access.Key]*stray
	said int // how many never asked, as it was logged last
	at   instant
}

type stray struct {
	first, seen instant // begin of the first and of the last list that showed it
	told        instant // when workers were last asked about it
	// answers is how often a worker has said that it holds no seat, and reason how it lost that, ""
	// if it never had one.
	answers int
	reason  access.CloseReason
	since   instant // of the first such answer
}

func newStrays() *strays { return &strays{by: make(map[access.Key]*stray)} }

// see notes that a list shows the session; ask says that a worker should be told. What may have
// no seat is asked about at every list, others seldom.
func (t *strays) see(k access.Key, begin, now instant) (ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.by[k]
	if n == nil {
		if len(t.by) >= maxStrays {
			return true
		}
		n = &stray{first: begin}
		t.by[k] = n
	}
	n.seen = begin
	if n.told != 0 && n.answers == 0 && now.since(n.told) < renewStrays {
		return false
	}
	n.told = now
	return true
}

// without notes a worker's word that the session has no seat; it gives for how long that is so.
func (t *strays) without(k access.Key, reason access.CloseReason, now instant) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.by[k]
	if n == nil {
		return 0
	}
	if n.answers++; n.answers == 1 || n.reason != reason {
		n.reason, n.since = reason, now
	}
	return now.since(n.since)
}

// turn forgets whom the list that began at begin did not show, and counts those who play although
// they never asked: two lists in a row showed them and a worker knew nothing of them each time.
func (t *strays) turn(begin instant) (unasked int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, n := range t.by {
		switch {
		case n.seen < begin:
			delete(t.by, k)
		case n.answers >= 2 && n.reason == "" && n.first < begin:
			unasked++
		}
	}
	return unasked
}

// stray follows a session that is on the list and has no seat here.
func (r *reading) stray(k access.Key, v *control.Session) {
	s, now := r.p.s, r.p.s.now()
	if len(v.Token) > len(adminToken) && v.Token[:len(adminToken)] == adminToken {
		return
	}
	if r.p.kicks.see(v.ID, r.begin) {
		return // it is being ended
	}
	if reason, ok := s.bars.latest(k); ok && forced(reason) {
		r.p.end(v.ID, v.Stream, k, reason)
		return
	}
	if r.p.strays.see(k, r.begin, now) {
		one := r.report(v)
		one.stream = v.Stream
		s.stranger(k, &one)
	}
}

// seatless acts on a worker's word that a listed session has no seat: reason is how it lost it, ""
// if no such session ever asked.
func (p *poller) seatless(r *report, k access.Key, reason access.CloseReason) {
	since := p.strays.without(k, reason, p.s.now())
	if forced(reason) || reason == access.CloseZapped && since >= lingers {
		p.end(r.id, r.stream, k, reason)
	}
}

// alarm tells how many sessions of the node play without ever having asked.
func (p *poller) alarm(ctx context.Context, unasked int) {
	node, now := p.node.Load().Name, p.s.now()
	p.s.metrics.unasked.WithLabelValues(node).Set(float64(unasked))
	t := p.strays
	if unasked == t.said || t.at != 0 && now.since(t.at) < quiet && unasked != 0 {
		return
	}
	t.said, t.at = unasked, now
	attrs := []any{slog.String(telemetry.Node, node), slog.Int(telemetry.Count, unasked)}
	if unasked == 0 {
		p.s.log.InfoContext(ctx, "nobody plays any more without having asked", attrs...)
		return
	}
	p.s.log.WarnContext(ctx, "sessions play at a node without ever having asked", attrs...)
}
