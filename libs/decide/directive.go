package decide

import (
	"context"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/policy"
)

// unruled is what an override goes by on a stream that no rule matches: no limit, the node's lease.
var unruled = &rule{Rule: &policy.Rule{Uncounted: access.FailAllow}}

// bans refuses whom a ban hits that does not name an account.
func (j *judgement) bans(context.Context) bool {
	j.orders = j.deps.Directives()
	if j.orders.Len() == 0 {
		return false
	}
	j.seen = directive.Viewer{IP: j.req.IP, Stream: j.req.Stream, Node: j.req.Node, Device: j.req.Device}
	if j.orders.NeedsToken() {
		j.seen.Token = j.deps.Keyer.Fingerprint(j.req.Token)
	}
	return j.banned(&j.seen)
}

// banned refuses the viewer if a ban hits him.
func (j *judgement) banned(v *directive.Viewer) bool {
	d := j.orders.Ban(v, j.deps.Now())
	if d == nil {
		return false
	}
	j.refuseBy(d, access.Banned)
	return true
}

func (j *judgement) refuseBy(d *directive.Directive, reason access.Reason) {
	j.trail.add(string(d.Kind), no, d.Words())
	j.verdict.Lease, j.verdict.Seat, j.verdict.Unavailable = 0, 0, false
	if j.rule == nil {
		j.astray(reason, d.Words())
		return
	}
	j.verdict.deny(reason, d.Words(), "")
}

// overrides looks for the override that decides in place of the policy and does not name an
// account. What it says is done once the rule is known, whose limit counts all the same.
func (j *judgement) overrides(context.Context) bool {
	j.ruling = j.orders.Ruling(&j.seen, j.deps.Now())
	return false
}

// ruled does what an override said.
func (j *judgement) ruled(ctx context.Context) bool {
	switch {
	case j.ruling == nil:
		return false
	case j.ruling.Action == directive.Deny:
		j.refuseBy(j.ruling, access.Overridden)
		return true
	}
	all := j.whose(ctx)
	for i := range all {
		if v := j.as(&all[i]); j.banned(&v) {
			return true
		}
	}
	if len(all) > 0 {
		j.letInBy(j.ruling, &all[0])
	} else {
		j.letInBy(j.ruling, nil)
	}
	return true
}

// letInBy lets the viewer in by an override, as whoever his token is known to belong to; s is nil
// where nobody knows. His lease ends with the override: then he is judged again.
func (j *judgement) letInBy(d *directive.Directive, s *said) {
	w := welcome{unavailable: true} // a running session stays whose it was
	if s != nil {
		w = j.welcome(s)
	}
	if w.expires.IsZero() || w.expires.After(d.Until) {
		w.expires = d.Until
	}
	j.trail.add(string(d.Kind), yes, d.Words())
	j.allow(&j.verdict, j.req, access.Overridden, d.Words(), w)
}

// whose are the accounts that the viewer's token belongs to, as far as that can be told without
// asking a middleware: by what verifiers find in it, and by the middlewares' last words on it.
func (j *judgement) whose(ctx context.Context) []said {
	if j.rule == nil {
		return nil
	}
	var all []said
	if len(j.rule.verifiers) > 0 {
		q := j.question()
		for _, c := range j.rule.verifiers {
			if c.other(j.req) != "" {
				continue
			}
			if s := j.verify(ctx, c, q); s.result == yes && s.user != "" {
				all = append(all, s)
			}
		}
	}
	for _, c := range j.rule.upstreams {
		if c.other(j.req) != "" {
			continue
		}
		if s := j.lastTaken(ctx, c); s.user != "" {
			all = append(all, s)
		}
	}
	return all
}

// lastTaken is whom the check last took the viewer's token for, as a yes without an account
// where it never knew.
func (j *judgement) lastTaken(ctx context.Context, c *check) said {
	w, _ := j.lastWord(ctx, c)
	return said{check: c, result: yes, user: w.User, name: w.SessionName, sessions: w.Sessions}
}

// as is the viewer as whom a check took him for.
func (j *judgement) as(s *said) directive.Viewer {
	v := j.seen
	v.Realm, v.User, v.Check = s.check.Realm, s.user, s.check.Name
	if s.device != "" {
		v.Device = s.device
	}
	return v
}

// known is the viewer as the policy has let him in.
func (j *judgement) known() directive.Viewer {
	v := j.seen
	v.Realm, v.User, v.Check = j.verdict.Realm, j.verdict.User, j.acceptedBy
	if j.verdict.Device != "" {
		v.Device = j.verdict.Device
	}
	return v
}

// userBans refuses whom the policy lets in and a ban on his account hits, or one on the device that
// a check named.
func (j *judgement) userBans(context.Context) bool {
	if j.orders.Len() == 0 || j.verdict.Outcome != access.Allow {
		return false
	}
	v := j.known()
	if j.banned(&v) {
		return true
	}
	for i := range j.accounts {
		if j.banned(&j.accounts[i]) {
			return true
		}
	}
	return false
}

// userOverrides refuses whom the policy lets in and an override on his account keeps out, and lets in
// whom it refused, if his token is known to belong to an account that an override lets in: also on the
// night on which the portal refuses everybody.
func (j *judgement) userOverrides(ctx context.Context) bool {
	switch {
	case j.orders.Len() == 0:
		return false
	case j.verdict.Outcome == access.Allow:
		v := j.known()
		v.Check = "" // that one's word has been heard
		if d := j.orders.Ruling(&v, j.deps.Now()); d != nil && d.Action == directive.Deny {
			j.refuseBy(d, access.Overridden)
			return true
		}
		return false
	case j.rule == nil || j.verdict.Reason == access.Banned || !j.orders.AllowsUsers():
		return false
	}
	all := j.whose(ctx)
	for i := range all {
		v := j.as(&all[i])
		v.Check = ""
		if j.banned(&v) {
			return true
		}
		if d := j.orders.Ruling(&v, j.deps.Now()); d != nil && d.Action == directive.Allow {
			j.letInBy(d, &all[i])
			return false // his limit may be another one too
		}
	}
	return false
}

// limitOverride gives the number of sessions of an override in place of the account's in the rule, for as
// long as the override lasts. Limits by other than the account, or of the rule alone, stay.
func (j *judgement) limitOverride(context.Context) bool {
	if j.orders.Len() == 0 || j.verdict.Outcome != access.Allow {
		return false
	}
	v := j.known()
	d := j.orders.Limit(&v, j.deps.Now())
	if d == nil {
		return false
	}
	j.trail.add("override", "limit", d.Words())
	j.verdict.orderLimit(d.Limit)
	j.ordersLimit = true
	j.verdict.Lease = min(j.verdict.Lease, max(d.Until.Sub(j.deps.Now()), 0))
	return false
}

// word is a middleware's word on the question, or that of an override in its place: then it is not
// asked, and the viewer is whom it last took him for, so that his limit counts.
func (j *judgement) word(ctx context.Context, c *check, h *held) (s said) {
	defer func() {
		// Checks are asked side by side: nobody above would catch it there, and the worker would end.
		if p := recover(); p != nil {
			j.panicked(ctx, c, p)
			s = said{check: c, result: unavailable, text: "the check failed inside"}
		}
	}()
	if j.orders.Speaks(c.Name) {
		if s := j.lastTaken(ctx, c); j.ordered(&s) {
			return s
		}
	}
	return j.ask(ctx, c, h)
}

// ordered puts an override's word in the place of a check's, if there is one.
func (j *judgement) ordered(s *said) bool {
	v := j.as(s)
	d := j.orders.Answer(&v, j.deps.Now())
	if d == nil {
		return false
	}
	s.order, s.text = d, d.Words()
	if d.Action == directive.Deny {
		s.result, s.reason = no, access.Overridden
		return true
	}
	s.result, s.expires = yes, d.Until
	return true
}
