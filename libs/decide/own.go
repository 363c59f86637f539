package decide

import (
	"context"
	"fmt"

	"usher.internal/libs/access"
	"usher.internal/libs/condition"
	"usher.internal/libs/policy"
)

// failedResult is the step of an expression that gave no answer.
const failedResult = "failed"

// fewRules are asked one after the other: an index over them costs more than it spares.
const fewRules = 4

// ownRules are some of the operator's own rules, in the file's order.
type ownRules struct {
	list  []*policy.Own
	index *condition.Index // nil for few
}

// own picks the rules that read the user, or the others.
func own(list []*policy.Own, user bool) ownRules {
	var out ownRules
	var exprs []*condition.Expr
	for _, o := range list {
		if o.When.ReadsUser() == user {
			out.list = append(out.list, o)
			exprs = append(exprs, o.When)
		}
	}
	if len(exprs) > fewRules {
		out.index = condition.NewIndex(exprs)
	}
	return out
}

// sees are the facts of the question that expressions look at.
func (j *judgement) sees() *condition.Facts {
	if j.facts == nil {
		r := j.req
		j.facts = &condition.Facts{
			Stream: r.Stream, Host: r.Host, Path: r.Path, Node: r.Node, Caller: r.Caller, Region: r.Region, Edge: r.Edge,
			IP: r.IP, Country: j.place.Country, ASN: j.place.ASN, Org: j.place.Org,
			UserAgent: r.UserAgent, Referer: r.Referer, Protocol: r.Protocol, Device: r.Device,
			HasToken: r.Token != "", Time: j.deps.Now(), Networks: j.networks,
		}
	}
	return j.facts
}

// applies says whether the stream's rule is for this question. If that cannot be told it is
// taken for it, and failed is set.
func (j *judgement) applies(r *policy.Rule, failed *error) bool {
	if r.When == nil {
		return true
	}
	holds, err := r.When.Holds(j.sees())
	if err != nil {
		*failed = err
		j.deps.Failed(fmt.Sprintf("streams[%d].when", r.Index))
		return true
	}
	return holds
}

// ownRules lets in or refuses by the first own rule that holds and does not read the user. Who
// is let in is asked for no check, so that he has no user and no limit, as on an allow list.
func (j *judgement) ownRules(context.Context) bool {
	if len(j.ownBefore.list)+len(j.rule.ownBefore.list) == 0 {
		return false
	}
	o := j.firstOwn(&j.ownBefore, &j.rule.ownBefore)
	switch {
	case o == nil:
		j.trail.add("own rules", "no match", "")
		return false
	case o.Allow:
		j.allow(&j.verdict, j.req, access.AllowRule, "own rule "+o.Name+" allows", welcome{unlimited: true})
	default:
		j.refuseByOwn(o)
	}
	return true
}

// userRules refuses by the first own rule that holds and reads the user, whom the checks have
// named. One that allows ends the search and changes nothing: the limit counts.
func (j *judgement) userRules(context.Context) bool {
	if !j.authed || j.verdict.Outcome != access.Allow || j.verdict.Reason == access.Overridden {
		return false
	}
	if len(j.ownAfter.list)+len(j.rule.ownAfter.list) == 0 {
		return false
	}
	j.sees().Learn(j.verdict.Realm, j.verdict.User, j.number)
	o := j.firstOwn(&j.ownAfter, &j.rule.ownAfter)
	switch {
	case o == nil:
		return false
	case o.Allow:
		j.verdict.Text += "; own rule " + o.Name + " allows"
		return false
	}
	j.verdict.Lease, j.verdict.Seat, j.verdict.Unavailable = 0, 0, false
	j.refuseByOwn(o)
	return true
}

func (j *judgement) refuseByOwn(o *policy.Own) {
	if o.OnDeny != nil {
		j.verdict.targets = o.OnDeny
	}
	j.verdict.deny(access.DenyRule, "own rule "+o.Name+" denies", "")
}

// firstOwn is the first rule that holds, of the lists one after the other; nil if none does. One
// that fails holds if it denies: in doubt nobody is let in.
func (j *judgement) firstOwn(lists ...*ownRules) *policy.Own {
	f := j.sees()
	for _, l := range lists {
		if l.index == nil {
			for _, o := range l.list {
				if j.decides(o, f) {
					return o
				}
			}
			continue
		}
		var room [64]int32
		for _, i := range l.index.Candidates(f, room[:0]) {
			if j.decides(l.list[i], f) {
				return l.list[i]
			}
		}
	}
	return nil
}

// decides says whether the rule holds, in a step if so.
func (j *judgement) decides(o *policy.Own, f *condition.Facts) bool {
	holds, err := o.When.Holds(f)
	switch {
	case err != nil:
		j.deps.Failed(o.Name)
		if o.Allow {
			j.trail.add("own rule "+o.Name, failedResult, "its expression failed, so that it does not allow")
			return false
		}
		j.trail.add("own rule "+o.Name, failedResult, "its expression failed, so that it denies")
		return true
	case !holds:
		return false
	case o.Allow:
		j.trail.add("own rule "+o.Name, yes, "")
	default:
		j.trail.add("own rule "+o.Name, no, "")
	}
	return true
}
