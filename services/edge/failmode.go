package edge

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/telemetry"
)

// failLease is how long a viewer goes on from memory after a fail mode let him: while
// workers are away, each of his segments must not wait for the whole budget.
const failLease = 20 * time.Second

// failed decides a question that no worker answered within the budget, by the fail
// mode of its rule. The outcome stands under the question's own id: a worker that
// decides it later finds the row and takes no seat. ses is the running session that the
// question re-decides, nil for strangers.
func (s *Service) failed(ctx context.Context, q *question, ses *session, cause error) access.Decision {
	d := access.Decision{ID: q.ID, Outcome: access.Deny, Reason: access.Unavailable, Revision: q.view.revision}
	if errors.Is(cause, errBusy) {
		d.Reason = access.Overload
	}
	now := s.now()
	var old *grant
	if ses != nil {
		old = ses.grant.Load()
		d.Realm, d.User, d.SessionName, d.Session = old.realm, old.user, old.name, old.session
	}
	whose := old
	if whose == nil {
		whose = s.suspect(q)
	}
	order, steps := s.order(q, whose), []access.Step{{Name: "fail mode", Result: string(q.rule.fail), Text: cause.Error()}}
	if order != nil {
		steps = append(steps, stepOf(order))
	}
	closed := false
	if old != nil {
		_, open := old.reach.Opens(q.Archive, q.asked)
		closed = !open
	}
	switch {
	case order != nil && order.Action == directive.Deny:
		d.Reason = reasonOf(order)
	case order != nil:
		d.Outcome, d.Reason, d.Unaccounted = access.Allow, access.Overridden, old == nil || old.unaccounted
	case closed:
		// The last word on this viewer was that this part is not for him.
		d.Reason = access.NoArchive
	case q.rule.fail == access.FailAllow && q.plays(): // to let everybody watch is not to let him publish
		d.Outcome, d.Reason, d.Unaccounted = access.Allow, access.Uncounted, true
	case q.rule.fail == access.FailGrace && old != nil && now.since(old.confirmed) < q.rule.grace:
		d.Outcome, d.Reason = access.Allow, access.Grace
	}
	d.Unknown = d.Outcome != access.Allow && q.rule.fail == access.FailGrace && order == nil && !closed
	d.Text = d.Reason.Text()
	q.send(&d)
	s.metrics.failed(q.rule.fail, d.Outcome)
	s.log.DebugContext(ctx, "no worker answered", slog.String(telemetry.Node, q.Node),
		slog.String(telemetry.Result, string(d.Outcome)), slog.Any(telemetry.Error, cause))
	s.journal.add(s.row(q, &d, steps...))
	if d.Outcome != access.Allow && q.doubt {
		s.abandoned.add(q.ID, now)
	}
	if d.Outcome == access.Allow {
		s.prolong(q, ses, old, &d, now)
	}
	return d
}

// prolong keeps a fail mode's answer for a while. Whoever was let in without a
// session has none until a worker gives him one.
func (s *Service) prolong(q *question, ses *session, old *grant, d *access.Decision, now instant) {
	g := &grant{
		session: d.Session, decision: d.ID, reason: d.Reason, realm: d.Realm, user: d.User,
		name: d.SessionName, revision: d.Revision, unaccounted: d.Unaccounted,
		until: now.add(shorten(failLease)),
	}
	d.Lease = g.until.since(now)
	if old != nil {
		g.confirmed, g.stream, g.reach = old.confirmed, old.stream, old.reach
		g.unaccounted = g.unaccounted || old.unaccounted
	}
	s.keep(q, ses, g)
}
