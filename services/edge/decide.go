package edge

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"time"
	"unique"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// decide answers a question: from memory where that is allowed, else by a worker,
// else by the fail mode. It never takes longer than the question's deadline.
func (s *Service) decide(ctx context.Context, q *question) access.Decision {
	now := s.now()
	ses := s.find(q)
	if ses != nil && (q.followed || ses.fits(q)) {
		ses.recall(q)
		if !q.followed && ses.moved(q) {
			// A ban may hold where the device is now.
			if d, ok := s.forbidden(ctx, q, ses); ok {
				return d
			}
			s.table.move(ses, trail(s.keyer, q))
		}
		if s.remembers(ses, q, now) && ses.opens(q) {
			ses.sign(now)
			q.memory = true
			return ses.answer(now)
		}
		// Asked again as it was opened: a check may know the viewer by the whole query, or by a
		// path that was signed for the playlist and not for its segments.
		q.Token, q.Path, q.Query = ses.token, ses.path(), ses.query()
		if q.Update {
			q.prefix = ses.prefix // the device stays the one that it was opened by
		}
	}
	if d, ok := s.forbidden(ctx, q, ses); ok {
		return d
	}
	if ses == nil && q.bare() && !q.rule.tokenless && !q.node.Shadow && !s.mayAllow(q) {
		return s.unfollowed(ctx, q)
	}
	if d, ok := s.barred(q, now); ok {
		return d
	}
	k := same(s.keyer, q)
	if d, ok := s.denials.get(k, now, q.view.revision); ok {
		s.tallies.add(d.ID, now)
		q.memory = true
		return d
	}
	d, led, ok := s.flights.do(k, q.deadline, func() access.Decision { return s.lead(ctx, q, k) })
	switch {
	case !ok:
		// The one who asked for all was held up past our own deadline.
		q.ID = s.newID()
		return s.failed(ctx, q, nil, errBudget)
	case !led:
		s.joined(q, &d)
	}
	return d
}

// find looks up the session that the question belongs to, and sets its key.
func (s *Service) find(q *question) *session {
	if q.follows() {
		if ses := s.table.follow(trail(s.keyer, q), q.Token); ses != nil {
			q.Key, q.Device, q.followed = ses.key, ses.device, true
			return ses
		}
	}
	q.Key = key(s.keyer, q)
	return s.table.get(q.Key)
}

// unfollowed refuses a question that has neither a token nor a session to follow,
// where no rule would let it in without.
func (s *Service) unfollowed(ctx context.Context, q *question) access.Decision {
	reason := access.NoSession
	if q.node.ByToken {
		reason = access.NoToken
	}
	return s.refuse(ctx, q, q.IP, reason, access.Step{Name: "session", Result: "none", Text: reason.Text()})
}

// barred refuses a key whose session was ended by force a moment ago.
func (s *Service) barred(q *question, now instant) (access.Decision, bool) {
	d, repeated, barred := s.bars.refuse(q, now, q.node.Shadow || q.rule.shadow, func(b *bar) access.Decision {
		d := access.Decision{
			ID: s.newID(), Outcome: access.Deny, Reason: endReason(b.reason),
			Realm: b.realm, User: b.user, Session: b.session, Revision: q.view.revision,
		}
		d.Text = d.Reason.Text()
		q.send(&d)
		s.journal.add(s.row(q, &d, access.Step{Name: "bar", Result: string(b.reason), Text: "this session was ended a moment ago: " + d.Text}))
		return d
	})
	if repeated {
		s.tallies.add(d.ID, now)
		q.memory = true
	}
	return d, barred
}

// endReason is the reason of a denial that a session's end stands behind.
func endReason(c access.CloseReason) access.Reason {
	switch c {
	case access.CloseKilled:
		return access.Killed
	case access.CloseBanned:
		return access.Banned
	case access.CloseOverridden:
		return access.Overridden
	}
	return access.Evicted
}

// joined accounts for a question that another one was asked for.
func (s *Service) joined(q *question, d *access.Decision) {
	now := s.now()
	if d.Outcome != access.Allow {
		s.tallies.add(d.ID, now)
		return
	}
	if ses := s.table.get(q.Key); ses != nil {
		ses.sign(now)
	}
}

// lead asks for a question and all equal ones that come while it is asked.
func (s *Service) lead(ctx context.Context, q *question, k access.Key) access.Decision {
	now := s.now()
	// An equal question may have been answered between our look and our lead.
	ses := s.table.get(q.Key)
	if ses != nil && ses.fits(q) {
		if s.remembers(ses, q, now) && ses.opens(q) {
			ses.sign(now)
			q.memory = true
			return ses.answer(now)
		}
	}
	if d, ok := s.denials.get(k, now, q.view.revision); ok {
		s.tallies.add(d.ID, now)
		q.memory = true
		return d
	}
	if ses == nil && q.followed {
		// It ended a moment ago, and a question without a token opens none.
		return s.unfollowed(ctx, q)
	}
	// A caller that hangs up must not take the answer from those who wait with it.
	ctx, span := s.startSpan(context.WithoutCancel(ctx), q)
	defer span.End()
	q.ID = s.newID()
	running := s.prepare(q, ses, now)
	if running != nil {
		q.known(running.grant.Load())
	}
	reply, sent, err := s.askAnew(ctx, q)
	s.metrics.asked(err)
	var d access.Decision
	switch {
	case err != nil:
		d = s.failed(ctx, q, running, err)
	case access.Outcome(reply.GetOutcome()) == access.Allow:
		d = s.admit(q, running, q.told(reply), sent)
	default:
		d = q.told(reply)
		// Who is refused a part of the archive plays on what he had.
		if ses != nil && d.Reason != access.NoArchive && s.table.remove(ses) && running != nil && d.Outcome == access.Deny && !d.Unknown {
			s.expel(ses, access.CloseDenied)
		}
	}
	if err == nil {
		s.insist(q, &d)
	}
	if ses != nil && q.Replaces != uuid.Nil && (err != nil || d.Outcome != access.Allow) {
		// Nobody has closed the session of whoever had the id before: a worker does so
		// when it opens the new one.
		s.table.remove(ses)
		s.closings.add(sign{ses: ses, id: q.Replaces, at: now, close: access.CloseIDReused})
	}
	if d.Outcome != access.Allow {
		s.denials.put(k, d, s.now())
	}
	endSpan(span, &d)
	return d
}

// insist reports a worker's answer as our own where another could stand in its row: one
// worker was given up and another one answered, or the worker could not wait for the
// ledger, which may yet take the seat of a viewer whom it denied.
func (s *Service) insist(q *question, d *access.Decision) {
	if d.ID == q.ID && (q.doubt || d.Outcome == access.Deny && d.Reason == access.Unavailable) {
		s.journal.add(s.row(q, d, access.Step{Name: "edge", Result: "answered", Text: "by a worker's word"}))
		if d.Outcome != access.Allow {
			s.abandoned.add(q.ID, s.now())
		}
	}
}

// prepare says in the question what it is to the session under its key, and returns
// that session if the question is its re-decision.
func (s *Service) prepare(q *question, ses *session, now instant) *session {
	switch {
	case ses == nil:
		if old := s.before(q); old != nil {
			q.Replaces = old.grant.Load().session
		}
		return nil
	case !ses.fits(q):
		if ses.zapped.Load() == 0 {
			q.Replaces = ses.grant.Load().session
		}
		return nil
	}
	if ses.zapped.Load() != 0 {
		state := s.zap(ses, q, now)
		q.StillPlaying, q.CameBack = state == playsOn, state == believed
		return nil
	}
	q.Session = ses.grant.Load().session
	return ses
}

// before is the running session of the same device on the same stream, where its server has given it
// another number: its connection broke, or its address has changed.
func (s *Service) before(q *question) *session {
	if !q.names() {
		return nil
	}
	old := s.table.follow(trailOf(s.keyer, q), q.Token)
	if old == nil || old.zapped.Load() != 0 || old.node.Value() != q.Node {
		return nil
	}
	return old
}

// admit keeps what a worker allowed.
func (s *Service) admit(q *question, ses *session, d access.Decision, sent instant) access.Decision {
	why, over := s.bars.ended(q.Key, d.Session)
	over = over && d.Session != uuid.Nil
	if over && why != access.CloseZapped {
		return s.overtaken(q, d, endReason(why), access.Step{Name: "bar", Result: string(why)})
	}
	if o := s.overruled(q, &d); o != nil {
		return s.overtaken(q, d, reasonOf(o), stepOf(o))
	}
	g := &grant{
		session: d.Session, decision: d.ID, reason: d.Reason, realm: shared(d.Realm), user: d.User,
		name: d.SessionName, stream: d.Stream, limit: int32(min(d.MaxSessions, math.MaxInt32)),
		revision: d.Revision, unaccounted: d.Unaccounted,
		until: sent.add(shorten(d.Lease)), confirmed: sent, reach: d.Reach,
	}
	if g.name == g.user {
		g.name = g.user // one copy
	}
	kept := s.keep(q, ses, g)
	kept.enter(q)
	if over && why == access.CloseZapped {
		kept.zapped.CompareAndSwap(0, int64(s.now()))
	}
	d.Lease = g.until.since(s.now()) // what the caller may rely on is what we do
	return d
}

// overtaken refuses a viewer whose session was ended by force, or who was banned, while the
// answer that let him in was on its way: a decision of its own, with its own row.
func (s *Service) overtaken(q *question, d access.Decision, why access.Reason, step access.Step) access.Decision {
	d.ID, d.Outcome, d.Reason, d.Lease = s.newID(), access.Deny, why, 0
	d.Text = d.Reason.Text()
	q.send(&d)
	s.journal.add(s.row(q, &d, step))
	return d
}

// keep stores a grant: in its running session, or in a new one.
func (s *Service) keep(q *question, ses *session, g *grant) *session {
	now := s.now()
	silence := int64(q.node.Silence(g.until.since(now)))
	if ses != nil && ses.grant.Load().session == g.session && ses.zapped.Load() == 0 {
		ses.silence.Store(silence)
		ses.grant.Store(g)
		ses.kept.Store(false)
		ses.sign(now)
		return ses
	}
	// Texts of the request are parts of its whole header block: only copies are kept.
	n := &session{
		key: q.Key, stream: unique.Make(q.Stream), ua: unique.Make(q.UserAgent), prefix: q.prefix,
		device: strings.Clone(q.Device), node: unique.Make(q.node.Name),
		rechecks: q.node.Rechecks, publishes: !q.plays(), born: now, reported: now, renewed: now,
	}
	own := ""
	if q.node.Control != nil {
		own = q.CallerSession
	}
	n.open(q.Path, q.Query, own, q.Token)
	n.trail = trailOf(s.keyer, q)
	n.silence.Store(silence)
	n.grant.Store(g)
	n.sign(now)
	s.table.put(n)
	return n
}

// shorten is the jitter of a lease: up to a fifth less, never more than was given.
func shorten(lease time.Duration) time.Duration {
	return lease - time.Duration(rand.Float64()*0.2*float64(lease))
}

var errBudget = errors.New("no answer within the budget")
