package decide

import (
	"context"
	"slices"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
)

// ordersForbid refuses whom an order keeps out that names no account, where the policy had refused
// him before it came to the orders: the trial would let him in.
func (j *judgement) ordersForbid(ctx context.Context) bool {
	if j.bans(ctx) {
		return true
	}
	d := j.orders.Ruling(&j.seen, j.deps.Now())
	if d == nil || d.Action != directive.Deny {
		return false
	}
	j.refuseBy(d, access.Overridden)
	return true
}

// heedOrders holds what an operator ordered about accounts against whom the trial lets in, whoever
// takes him for one of them: the policy's checks or the one that answers.
func (j *judgement) heedOrders(ctx context.Context) {
	v := &j.verdict
	if j.orders.Len() == 0 || v.Outcome != access.Allow {
		return
	}
	all := append(slices.Clip(j.accounts), j.known())
	if v.Would != access.Allow {
		found := j.whose(ctx)
		for i := range found {
			all = append(all, j.as(&found[i]))
		}
	}
	for i := range all {
		if j.keptOut(&all[i]) {
			v.Would, v.WouldReason, v.Shadow = "", "", false
			return
		}
	}
	if !j.ordersLimit {
		j.limitOverride(ctx)
		v.Shadow = v.Shadow && !j.ordersLimit
	}
}

// keptOut refuses the viewer if a ban hits him, or an override that keeps him out.
func (j *judgement) keptOut(v *directive.Viewer) bool {
	if j.banned(v) {
		return true
	}
	unchecked := *v
	unchecked.Check = "" // that one's word has been heard
	if d := j.orders.Ruling(&unchecked, j.deps.Now()); d != nil && d.Action == directive.Deny {
		j.refuseBy(d, access.Overridden)
		return true
	}
	return false
}
