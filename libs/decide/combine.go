package decide

import (
	"context"
	"slices"
	"sync"
	"time"

	"usher.internal/libs/access"
)

// any asks verifiers in the order of the policy, then all middlewares at once; the
// first yes wins. A no or "not mine" of a verifier leaves the word to the next.
func (j *judgement) any(ctx context.Context) {
	answers := make([]said, 0, len(j.rule.Checks))
	if len(j.verifiers) > 0 {
		q := j.question()
		for _, c := range j.verifiers {
			s := j.verify(ctx, c, q)
			j.ordered(&s)
			j.note(&s)
			if s.result == yes {
				j.accept(&s)
				return
			}
			answers = append(answers, s)
		}
	}
	upstream := j.askAll(ctx, yes)
	for i := range upstream {
		// The first in the policy's order, not in time: user and number are his.
		if upstream[i].result == yes {
			j.accept(&upstream[i])
			return
		}
	}
	answers = append(answers, upstream...)
	if j.excusedAny(ctx, answers) {
		return
	}
	j.refuse(answers, ranksAny)
}

// all asks verifiers in the order of the policy and stops at the first no, then
// all middlewares at once. Every check must say yes, or be excused by its fail mode.
func (j *judgement) all(ctx context.Context) {
	answers := make([]said, 0, len(j.rule.Checks))
	if len(j.verifiers) > 0 {
		q := j.question()
		for _, c := range j.verifiers {
			s := j.verify(ctx, c, q)
			j.ordered(&s)
			j.note(&s)
			answers = append(answers, s)
			if s.result != yes && s.result != unavailable {
				j.refuse(answers, ranksAll)
				return
			}
		}
	}
	answers = append(answers, j.askAll(ctx, no)...)
	for i := range answers {
		if answers[i].result != yes && answers[i].result != unavailable {
			j.refuse(answers, ranksAll)
			return
		}
	}
	j.acceptAll(ctx, answers)
}

// askAll asks all middlewares of the rule at once and waits for them, except those whose
// grant holds. The first that ends with enough spares the others: they are cancelled, and
// a grant that is enough spares them altogether. Some of the time is kept for what the fail
// mode looks up.
func (j *judgement) askAll(ctx context.Context, enough string) []said {
	cs := j.upstreams
	if len(cs) == 0 {
		return nil
	}
	h := j.findGrants(ctx)
	out := make([]said, len(cs))
	ctx, cancel := keepTime(ctx)
	defer cancel()
	spares := func(c *check) bool { return h.spares(c) && !j.orders.Speaks(c.Name) }
	switch {
	case enough == yes && slices.ContainsFunc(cs, spares):
		for i, c := range cs {
			out[i] = said{check: c, result: notNeeded}
			if spares(c) {
				out[i] = j.ask(ctx, c, h)
			}
		}
	case len(cs) == 1:
		out[0] = j.word(ctx, cs[0], h)
	default:
		var wg sync.WaitGroup
		for i, c := range cs {
			wg.Go(func() {
				if out[i] = j.word(ctx, c, h); out[i].result == enough {
					cancel()
				}
			})
		}
		wg.Wait()
	}
	for i := range out {
		j.note(&out[i])
	}
	return out
}

// keepTime ends ctx early by the time of one look-up, or by a quarter of what is left.
func keepTime(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(lookUpTime, time.Until(end)/4)))
}

// note adds the step of a check.
func (j *judgement) note(s *said) {
	text := s.text
	switch {
	case s.user != "" && text == "":
		text = "user " + s.user
	case s.user != "":
		text += "; user " + s.user
	}
	j.trail.addTook("check "+s.check.Name, s.result, text, s.took)
}

// accept lets the viewer in by what one check said.
func (j *judgement) accept(s *said) {
	j.acceptedBy = s.check.Name
	if s.order != nil {
		j.allow(&j.verdict, j.req, access.Overridden, "check "+s.check.Name+": "+s.text, j.welcome(s))
		return
	}
	j.allow(&j.verdict, j.req, access.Granted, "check "+s.check.Name+" accepted the viewer", j.welcome(s))
}

func (j *judgement) welcome(s *said) welcome {
	return welcome{
		realm: s.check.Realm, user: s.user, device: s.device, name: s.name, bearer: s.bearer,
		sessions: j.rule.number(s.check, s.sessions), reach: s.reach, duration: s.duration, expires: s.expires,
		// An override said so and nobody knows whose the token is: a running session stays whose it was.
		unavailable: s.order != nil && s.user == "",
	}
}

// merge adds what another check of `all` said: the first that names an account
// gives it, the tightest number and time count.
func (w *welcome) merge(o welcome) {
	if w.user == "" && (o.user != "" || w.realm == "") {
		w.user, w.realm = o.user, o.realm
	}
	if w.device == "" {
		w.device = o.device
	}
	if w.name == "" {
		w.name = o.name
	}
	if w.bearer == "" {
		w.bearer = o.bearer
	}
	if o.sessions > 0 && (w.sessions == 0 || o.sessions < w.sessions) {
		w.sessions = o.sessions
	}
	w.reach = w.reach.And(o.reach)
	if o.duration > 0 && (w.duration == 0 || o.duration < w.duration) {
		w.duration = o.duration
	}
	if !o.expires.IsZero() && (w.expires.IsZero() || o.expires.Before(w.expires)) {
		w.expires = o.expires
	}
	w.unavailable = w.unavailable || o.unavailable
}

// How strongly an answer speaks for a denial. In `any` a check that could not be
// asked might have said yes, so that it comes before those that had nothing to say;
// in `all` it never keeps another's word from standing.
var (
	ranksAny = map[string]int{no: 4, unavailable: 3, notMine: 2, skipped: 1}
	ranksAll = map[string]int{no: 4, notMine: 2, skipped: 1}
)

// knowsBetter says whether the no proves whose token it is, where the other one does not: two
// checks with different keys, of which one made the token that has ended.
func (s *said) knowsBetter(other *said) bool {
	proven := s.reason == access.Expired || s.reason == access.NotYet || s.reason == access.WrongIP
	return proven && s.result == no && other.result == no && other.reason == access.BadToken
}

// refuse denies by the strongest answer, the first of them in the policy's order.
func (j *judgement) refuse(answers []said, ranks map[string]int) {
	var best said
	location := ""
	for i := range answers {
		s := &answers[i]
		if s.result == no && location == "" {
			location = s.location
		}
		if ranks[s.result] > ranks[best.result] || s.knowsBetter(&best) {
			best = *s
		}
	}
	switch best.result {
	case no:
		j.verdict.deny(best.reason, "check "+best.check.Name+": "+best.text, location)
		if location != "" {
			j.verdict.Outcome = access.Redirect
		}
	case notMine:
		text := "no check of the rule knows this form of token"
		if len(answers) == 1 && best.check.accounts != nil {
			text = "check " + best.check.Name + ": " + best.text
		}
		j.verdict.deny(access.BadToken, text, "")
	case skipped:
		j.verdict.deny(access.NoToken, "", "")
	default:
		j.verdict.Unavailable, j.verdict.Unknown = true, j.unknown
		text := ""
		if best.check != nil {
			text = "check " + best.check.Name + " could not be asked, and its fail mode denies"
		}
		j.verdict.deny(access.Unavailable, text, "")
	}
}

// since is how long ago t was, by the engine's clock.
func (e *Engine) since(t time.Time) time.Duration { return e.deps.Now().Sub(t) }
