package admissiontest

import (
	"cmp"
	"slices"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// ruling is what the limits say of a question.
type ruling struct {
	why   access.Reason // "" if each has room or makes some
	full  int           // which of them says no
	stays []*seat       // those that hold its seats
	out   []*seat       // those who make room, in order of their opening
}

// tell says in the answer whose seats are full.
func (g *ruling) tell(r *admission.Result) {
	if g.why == access.Limit {
		r.Holders, r.Full, r.Taken = holders(g.stays), g.full, len(g.stays)
	}
}

// rule asks all limits of a question whether its seat may be taken, or kept where it is the
// running session same; zaps are about to end by themselves.
func (m *Model) rule(o *admission.Open, same *seat, zaps []*seat) ruling {
	if o.Keep && same != nil {
		return ruling{}
	}
	var need []room
	for i, l := range o.All() {
		stays := m.sorted(func(s *seat) bool {
			return s.under(l.Subject) && s.counts(o) && s != same && s.expires.After(m.now()) && !slices.Contains(zaps, s)
		})
		why, makes := judge(o, &l, same, stays)
		if why != "" {
			return ruling{why: why, full: i, stays: stays}
		}
		if makes > 0 {
			need = append(need, room{stays, makes})
		}
	}
	return ruling{out: makeOut(need)}
}

// room is how many of whom must go for a limit.
type room struct {
	stays []*seat
	n     int
}

// makeOut picks who goes: of the narrowest limit first, so that one who goes serves several.
func makeOut(need []room) []*seat {
	slices.SortStableFunc(need, func(a, b room) int { return cmp.Compare(len(a.stays), len(b.stays)) })
	var out []*seat
	for _, r := range need {
		for _, s := range r.stays {
			if slices.Contains(out, s) {
				r.n--
			}
		}
		for _, s := range r.stays {
			if r.n > 0 && !slices.Contains(out, s) {
				out = append(out, s)
				r.n--
			}
		}
	}
	return out
}

// judge is one limit's word: why not, or how many must go.
func judge(o *admission.Open, l *admission.Limit, same *seat, stays []*seat) (why access.Reason, makes int) {
	n, mode := len(stays), l.Mode
	if o.Shadow && mode == access.Soft {
		mode = access.EvictOldest // in the end it does
	}
	// Who did not count so far needs a free seat, as if he were opened now.
	apart := same != nil && (o.Shadow && same.beyond || !o.Shadow && same.Shadow)
	if same != nil && !apart && same.under(l.Subject) {
		older := 0
		for _, s := range stays {
			if s.order < same.order {
				older++
			}
		}
		switch {
		case mode == access.RefuseNew && older >= l.Sessions:
			return access.Limit, 0
		case mode == access.EvictOldest && n-older >= l.Sessions:
			return access.Evicted, 0
		}
		return "", 0
	}
	switch {
	case n < l.Sessions, mode == access.Soft && n < admission.SoftShare*l.Sessions:
		return "", 0
	case mode != access.EvictOldest:
		return access.Limit, 0
	case apart:
		return access.Evicted, 0
	case l.Sessions == 0:
		return access.Limit, 0
	}
	return "", n - l.Sessions + 1
}

// under says whether the seat counts for a subject.
func (s *seat) under(subject access.Key) bool {
	return s.Subject == subject || slices.Contains(s.Counted, subject)
}

// counted says whether the seat counts for any limit of the open.
func (s *seat) counted(o *admission.Open) bool {
	return s.Subject == o.Subject || slices.ContainsFunc(o.More, func(l admission.Limit) bool { return s.under(l.Subject) })
}

// counts says whether the seat counts for the open: those that were taken in shadow count for
// shadow alone, and there only as far as enforcement would have left them.
func (s *seat) counts(o *admission.Open) bool {
	if o.Shadow {
		return !s.beyond
	}
	return !s.Shadow
}
