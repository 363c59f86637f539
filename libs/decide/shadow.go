package decide

import (
	"context"
	"encoding/binary"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// shadow is the end of every judgement: where the policy is only tried out on this viewer, its
// word is kept as what it would have been, and he gets that of the check that answers here (the
// backend that the operator runs today), or an allow. What an operator ordered by hand, and who
// may not ask at all, holds in shadow too.
func (j *judgement) shadow(ctx context.Context) {
	v := &j.verdict
	if v.Node == nil || v.Reason == access.Banned {
		return
	}
	slot := j.slot(ctx)
	tried := slot >= enforcedUpTo(v.Node.Shadow) || v.Rule != nil && slot >= enforcedUpTo(v.Rule.Shadow)
	// A client's cap is its own, not the rule's.
	limit := v.Limited() && v.Reason != access.Client && len(v.Rule.Limits) > 0 && slot >= enforcedUpTo(v.Rule.Limits[0].Shadow)
	v.Shadow = (tried || limit) && !j.ordersLimit
	if !tried || v.Reason == access.Overridden || v.Outcome != access.Allow && j.ordersForbid(ctx) {
		return
	}
	if v.Rule == nil {
		j.rule, v.Rule = unruled, unruled.Rule
	}
	if j.req.Action == access.Publish && v.Outcome != access.Allow && j.answering() == nil {
		return // a trial lets everybody watch; it lets nobody publish whom no check of today accepts
	}
	v.Would, v.WouldReason = v.Outcome, v.Reason
	v.Reach = nil // is tried out too
	answer := j.answering()
	switch {
	case answer != nil:
		j.answerBy(ctx, answer)
	case v.Outcome != access.Allow:
		j.trail.add("shadow", yes, "the policy is tried out here; it would have said: "+v.Text)
		j.letInShadow(access.Shadow, "the policy is tried out here; it would have refused: "+v.Text, welcome{unlimited: true})
	default:
		j.trail.add("shadow", yes, "the policy is tried out here")
	}
	j.heedOrders(ctx)
}

// answering is the check whose word a viewer gets on whom the policy is only tried out: the
// rule's where the rule is, else the node's; nil for none.
func (j *judgement) answering() *check {
	v := &j.verdict
	switch {
	case v.Rule != nil && v.Rule.Shadow > 0 && v.Rule.Answer != nil:
		return j.checks[v.Rule.Answer.Name]
	case v.Node.Shadow > 0 && v.Node.Answer != nil:
		return j.checks[v.Node.Answer.Name]
	}
	return nil
}

// askEarly asks the check that may have to answer, beside the policy's own: a new check that
// hangs must not cost the one that viewers depend on its time.
func (j *judgement) askEarly(ctx context.Context) bool {
	c := j.answering()
	if c == nil {
		return false
	}
	own := *j // what it notes on its way is its own
	own.trail, own.upstreams = newTrail(), []*check{c}
	ctx, cancel := context.WithCancel(ctx)
	early := make(chan said, 1)
	j.early, j.endEarly = early, func() { cancel(); <-early }
	go func() { defer close(early); early <- own.wordOf(ctx, c) }()
	return false
}

// enforcedUpTo is the first of a hundred slots for which the policy is only tried out.
func enforcedUpTo(shadow int) int { return everybody - shadow }

const everybody = 100

// slot is where the viewer stands among a hundred, always the same: by his account, else by
// what he is counted for without one. Who is enforced stays so when the share grows.
func (j *judgement) slot(ctx context.Context) int {
	of := j.verdict.Subject
	if of.IsZero() {
		of = j.subject(j.req, j.suspect(ctx))
	}
	h := j.deps.Keyer.Key("enforce", string(of[:]))
	return int(binary.BigEndian.Uint32(h[:4]) % everybody)
}

// suspect is whose the token of a refused viewer is known to be, so that he stands where he stands
// when he is let in.
func (j *judgement) suspect(ctx context.Context) welcome {
	if v := &j.verdict; !partly(v.Node.Shadow) && (v.Rule == nil || !partly(v.Rule.Shadow)) {
		return welcome{} // it does not matter
	}
	if all := j.whose(ctx); len(all) > 0 {
		return welcome{realm: all[0].check.Realm, user: all[0].user}
	}
	return welcome{}
}

func partly(shadow int) bool { return shadow > 0 && shadow < everybody }

// answerBy gives the viewer the word of the check that answers in shadow.
func (j *judgement) answerBy(ctx context.Context, c *check) {
	v := &j.verdict
	var s said
	if j.early != nil {
		s = <-j.early
	} else {
		s = j.wordOf(ctx, c) // the policy had decided before it came to its checks
	}
	j.note(&s)
	j.trail.add("shadow", s.result, "check "+c.Name+" answers here while the policy is tried out; it would have said: "+v.Text)
	switch s.result {
	case yes:
		w := j.welcome(&s)
		j.accounts = append(j.accounts, j.as(&s))
		if v.Outcome == access.Allow {
			// Counted as whoever the policy knows; told to the caller as the one that answers knows him.
			v.SessionName, v.Told, v.Reach = s.name, s.sessions, s.reach
			return
		}
		w.unlimited = true
		reason, text := access.Granted, "check "+c.Name+" answers here and accepted the viewer"
		if s.order != nil {
			reason, text = access.Overridden, "check "+c.Name+" answers here: "+s.text
		}
		j.letInShadow(reason, text+"; the policy would have refused: "+v.Text, w)
		v.Told, v.Reach = s.sessions, s.reach
	case unavailable:
		x, ok := j.excuse(ctx, c, false)
		if !ok {
			v.Unavailable, v.Unknown = true, j.unknown
			j.refuseShadow(access.Unavailable, "check "+c.Name+" answers here and could not be asked, and its fail mode denies", "")
			return
		}
		if v.Outcome != access.Allow {
			x.welcome.unlimited = true
			j.letInShadow(x.reason, x.text, x.welcome)
		}
	default:
		reason := access.Refused
		if s.order != nil {
			reason = access.Overridden
		}
		j.refuseShadow(reason, "check "+c.Name+" answers here: "+s.words(), s.location)
	}
}

func (s *said) words() string {
	if s.text != "" {
		return s.text
	}
	return s.result
}

func (j *judgement) letInShadow(reason access.Reason, text string, w welcome) {
	running := j.req.Session != uuid.Nil
	j.allow(&j.verdict, j.req, reason, text, w)
	j.verdict.Shadow = true
	if w.user == "" && running {
		// The policy does not say whose he is: his session stays whose it was.
		j.verdict.Unavailable = true
	}
}

func (j *judgement) refuseShadow(reason access.Reason, text, location string) {
	j.verdict.Lease, j.verdict.Seat = 0, 0
	j.verdict.deny(reason, text, location)
	// Where the viewer is sent is the answering check's own word, not on_deny's.
	j.verdict.told = true
	if location != "" {
		j.verdict.Outcome = access.Redirect
	}
}

// wordOf is the check's word on this question, or that of an override in its place, whatever else
// was asked. A panic in it costs this check alone, wherever it runs.
func (j *judgement) wordOf(ctx context.Context, c *check) (s said) {
	defer func() {
		if p := recover(); p != nil {
			j.panicked(ctx, c, p)
			s = said{check: c, result: unavailable, text: "the check failed inside"}
		}
	}()
	switch {
	case c.other(j.req) != "":
		return said{check: c, result: notFor, text: "it is not for this question"}
	case c.middleware == nil:
		s = j.verify(ctx, c, j.question())
		j.ordered(&s)
		return s
	}
	j.upstreams = []*check{c}
	ctx, cancel := keepTime(ctx)
	defer cancel()
	return j.word(ctx, c, j.findGrants(ctx))
}
