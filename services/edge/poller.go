package edge

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/control"
)

const (
	// lately is how long after its last question a node that belongs to no edge is still polled.
	lately = 24 * time.Hour
	// settling is how long a session may take to come into its node's list: the node is only
	// just being told that its viewer may watch.
	settling = 10 * time.Second
	// afterAsking is how much later than its question a session may seem to have been opened.
	afterAsking = 10 * time.Second
	// hurry is between two lists where something is looked for.
	hurry = time.Second
	// maxListTime bounds all pages of a list.
	maxListTime = time.Minute
)

var errNoControl = errors.New("this version knows no control API of that caller")

// The states of a node's control API, as the metric and the log name them.
const (
	controlIdle     = "idle"     // another edge's, as far as we can tell: the node has not asked here lately
	controlWorks    = "works"    // its list is whole, and its ids are those that it asks with
	controlUnproven = "unproven" // its list is whole; no session that it asked about was on it yet
	controlFails    = "fails"    // no whole list: sessions are kept for hold, or while they show life
)

// poller asks one node's control API. What is not said otherwise belongs to its goroutine.
type poller struct {
	s      *Service
	conf   caller.Control
	client *control.Client
	server control.Server
	node   atomic.Pointer[caller.Node]
	asked  atomic.Int64 // instant of the node's last question here, 0 if there was none
	wake   chan struct{}
	strays *strays
	kicks  *kicks
	// again are the streams about whose viewers the node is to ask anew.
	again *again

	state string
	// before is when the last list was begun, if it was whole; 0 if not.
	before instant
	// shown are the sessions of the last list, kept while all seats of the node are to be compared with
	// its lists; compared is when that was done last, 0 for never.
	shown    map[access.Key]struct{}
	compared instant
	// proven says that a session that the node asked about has been on its list: the ids are the same.
	proven bool
}

// questioned notes that the node asked here.
func (p *poller) questioned(now instant) {
	if p.asked.Swap(int64(now)) == 0 {
		nudge(p.wake)
	}
}

// ours says whether this edge polls the node: the policy gives it to us, or it asked here lately.
func (p *poller) ours(now instant) bool {
	if p.node.Load().Edge == p.s.cfg.Name {
		return true
	}
	asked := instant(p.asked.Load())
	return asked != 0 && now.since(asked) < lately
}

// run polls, and ends sessions at the node, until ctx ends.
func (p *poller) run(ctx context.Context) {
	var kicking sync.WaitGroup
	kicking.Go(func() { p.kick(ctx) })
	if asker, ok := p.server.(control.Reauther); ok {
		kicking.Go(func() { p.reauth(ctx, asker) })
	}
	defer p.client.Close()
	defer kicking.Wait()
	defer p.forget()
	// Not all nodes at once after a start.
	next := time.NewTimer(rand.N(p.conf.Poll / 4))
	defer next.Stop()
	for last := instant(0); ; {
		select {
		case <-next.C:
		case <-p.wake:
			next.Reset(max(hurry-p.s.now().since(last), 0))
			continue
		case <-ctx.Done():
			return
		}
		last = p.s.now()
		if p.ours(p.s.now()) {
			p.list(ctx)
		} else {
			p.becomes(ctx, controlIdle, nil)
		}
		next.Reset(jitter(p.conf.Poll))
	}
}

// jitter is a tenth more or less.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// list reads the node's list once, and acts on it if it is whole.
func (p *poller) list(ctx context.Context) {
	once, cancel := context.WithTimeout(ctx, maxListTime)
	defer cancel()
	r := &reading{p: p, node: p.node.Load(), begin: p.s.now()}
	if p.compared == 0 || r.begin.since(p.compared) >= compareEvery {
		r.shown = make(map[access.Key]struct{})
	}
	sum, err := p.server.List(once, r.take)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.before, p.shown = 0, nil
		p.kicks.unlisted(p.s.now())
		p.s.metrics.polls.WithLabelValues(r.node.Caller, "failed").Inc()
		p.becomes(ctx, controlFails, err)
		return
	}
	p.s.metrics.polls.WithLabelValues(r.node.Caller, "whole").Inc()
	p.proven = p.proven || r.mine > 0
	if p.proven {
		r.missing(ctx, sum)
	}
	p.kicks.confirm(r.begin, p.s.now(), func(k *kick, result string) { p.kicked(ctx, k, result, nil) })
	p.alarm(ctx, p.strays.turn(r.begin))
	p.compare(ctx, r)
	p.before = r.begin
	if p.proven {
		p.becomes(ctx, controlWorks, nil)
	} else {
		p.becomes(ctx, controlUnproven, nil)
	}
}

// becomes tells of a change of state, once.
func (p *poller) becomes(ctx context.Context, state string, err error) {
	if p.state == state {
		return
	}
	node, gauge := p.node.Load().Name, p.s.metrics.control
	if p.state != "" {
		gauge.WithLabelValues(node, p.state).Set(0)
	}
	gauge.WithLabelValues(node, state).Set(1)
	p.state = state
	attrs := []any{slog.String(telemetry.Node, node), slog.String(telemetry.State, state)}
	if err != nil {
		p.s.log.WarnContext(ctx, "control API of a node fails, its sessions are kept without it", append(attrs, slog.Any(telemetry.Error, err))...)
		return
	}
	p.s.log.InfoContext(ctx, "control API of a node", attrs...)
}

// forget takes the node out of the metrics.
func (p *poller) forget() {
	node := p.node.Load().Name
	p.s.metrics.unasked.DeleteLabelValues(node)
	for _, state := range []string{controlIdle, controlWorks, controlUnproven, controlFails} {
		p.s.metrics.control.DeleteLabelValues(node, state)
	}
}

// reading is one list while it is read.
type reading struct {
	p     *poller
	node  *caller.Node
	begin instant
	mine  int                     // sessions on it that this edge knows
	shown map[access.Key]struct{} // nil: nobody needs them
}

// take acts on one row of the list.
func (r *reading) take(v *control.Session) {
	s, now := r.p.s, r.p.s.now()
	k := s.keyer.Key("caller session", r.node.Name, v.ID)
	ses := s.table.get(k)
	if r.shown != nil && !v.Ended {
		r.shown[k] = struct{}{}
	}
	switch {
	case ses == nil && v.Ended:
		return // its node said so, or will, in its events
	case ses == nil || !r.its(ses, v, now):
		r.stray(k, v)
		return
	}
	r.mine++
	if ses.zapped.Load() != 0 {
		// Its seat is gone. A list is too coarse to tell whether it is left: that is seen when it stays.
		r.stray(k, v)
		return
	}
	one := r.report(v)
	one.opened = time.Time{} // looked at already, more exactly
	s.heard(context.Background(), one)
}

// its says whether the row is of the session that we know by its id. One that was opened after
// our last question about the id never asked: the node was restarted, its ids begin anew, and ours
// is over.
func (r *reading) its(ses *session, v *control.Session, now instant) bool {
	one := r.report(v)
	if one.once() || v.Age == 0 || now.add(-v.Age) <= instant(ses.asked.Load()).add(afterAsking) {
		return true
	}
	r.p.s.over(ses, r.node, instant(ses.lastSign.Load()))
	return false
}

func (r *reading) report(v *control.Session) report {
	one := report{
		node: r.node, id: v.ID, token: v.Token, user: v.User, userAgent: v.UserAgent, ip: v.IP,
		at: r.begin, ended: v.Ended, reason: v.Reason, bytes: v.Bytes, playing: v.Playing, country: v.Country,
	}
	if v.Age > 0 {
		one.opened = time.Now().Add(-v.Age)
	}
	return one
}

// missing ends the sessions of the node that a whole list did not show, which was begun after
// their last sign of life. Where a list may have changed while it was read, or where the session was on
// none yet, two lists in a row must say so.
func (r *reading) missing(ctx context.Context, sum control.Summary) {
	s, ended := r.p.s, 0
	s.table.each(func(ses *session) {
		if ses.node.Value() != r.node.Name || ses.caller() == "" || ses.zapped.Load() != 0 {
			return
		}
		last := instant(ses.lastSign.Load())
		once := sum.Pages == 1 && ses.said.Load() != nil && last < r.begin
		twice := last < r.p.before && r.begin.since(ses.born) > settling
		if once || twice {
			s.over(ses, r.node, r.begin)
			ended++
		}
	})
	if ended > 0 {
		s.log.DebugContext(ctx, "sessions are no longer on their node's list", slog.String(telemetry.Node, r.node.Name), slog.Int(telemetry.Count, ended))
	}
}

// over ends a session at its node's word.
func (s *Service) over(ses *session, n *caller.Node, at instant) {
	s.stopped(ses, &report{node: n, id: ses.caller(), at: at, ended: true})
}

// forced says whether a session that was ended so must not play on.
func forced(reason access.CloseReason) bool {
	switch reason {
	case access.CloseKilled, access.CloseEvicted, access.CloseBanned, access.CloseOverridden:
		return true
	}
	return false
}
