package directive

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"usher.internal/libs/access"
)

// Set is an immutable index of directives. Each stands under its most telling criterion, so that
// a look-up costs a few map accesses however many there are; only those that name nothing but
// patterns and nodes are looked at one by one. The nil Set is empty.
type Set struct {
	users    index[account]
	tokens   index[access.Key]
	devices  index[string]
	networks index[netip.Prefix]
	rest     []*entry
	// lengths are the prefix lengths in use, of IPv4 and IPv6.
	lengths [2][]length

	// checks are the checks in whose place an override speaks, and how many do. Never changed.
	checks map[string]int

	size, withToken, withDevice, userAllows, limits int
}

type account struct{ realm, user string }

// length is a prefix length and how many networks have it.
type length struct{ bits, n int }

// NewSet makes a set. Of directives with the same id all count; a Book gives each once.
func NewSet(list ...Directive) *Set {
	s := new(Set)
	for i := range list {
		e, ok := newEntry(list[i])
		if !ok {
			continue
		}
		s.count(e, 1)
		switch {
		case e.User != "":
			s.users.add(account{e.Realm, e.User}, e)
		case !e.Token.IsZero():
			s.tokens.add(e.Token, e)
		case e.Device != "":
			s.devices.add(e.Device, e)
		case e.Network.IsValid():
			s.networks.add(e.Network, e)
		default:
			s.rest = append(s.rest, e)
		}
	}
	return s
}

// with is the set and one more entry.
func (s *Set) with(e *entry) *Set { return s.changed(e, 1, with(e)) }

// without is the set without the entry.
func (s *Set) without(e *entry) *Set { return s.changed(e, -1, without(e)) }

func (s *Set) changed(e *entry, by int, f func([]*entry) []*entry) *Set {
	n := *s
	n.lengths = [2][]length{slices.Clone(s.lengths[0]), slices.Clone(s.lengths[1])}
	n.count(e, by)
	switch {
	case e.User != "":
		n.users = n.users.change(account{e.Realm, e.User}, f)
	case !e.Token.IsZero():
		n.tokens = n.tokens.change(e.Token, f)
	case e.Device != "":
		n.devices = n.devices.change(e.Device, f)
	case e.Network.IsValid():
		n.networks = n.networks.change(e.Network, f)
	default:
		n.rest = f(n.rest)
	}
	return &n
}

// count keeps what says which look-ups can be spared.
func (s *Set) count(e *entry, by int) {
	s.size += by
	if !e.Token.IsZero() {
		s.withToken += by
	}
	if e.Device != "" {
		s.withDevice += by
	}
	if e.Action == Allow && e.NeedsUser() {
		s.userAllows += by
	}
	if e.Check != "" && e.Action != Limit {
		s.checks = maps.Clone(s.checks)
		if s.checks == nil {
			s.checks = make(map[string]int, 1)
		}
		if s.checks[e.Check] += by; s.checks[e.Check] == 0 {
			delete(s.checks, e.Check)
		}
	}
	if e.Action == Limit {
		s.limits += by
	}
	if e.User != "" || !e.Token.IsZero() || e.Device != "" || !e.Network.IsValid() {
		return
	}
	family := &s.lengths[familyOf(e.Network.Addr())]
	bits := e.Network.Bits()
	at := slices.IndexFunc(*family, func(l length) bool { return l.bits == bits })
	if at < 0 {
		*family = append(*family, length{bits: bits})
		at = len(*family) - 1
	}
	if (*family)[at].n += by; (*family)[at].n == 0 {
		*family = slices.Delete(*family, at, at+1)
	}
}

func familyOf(ip netip.Addr) int {
	if ip.Is4() {
		return 0
	}
	return 1
}

// Len is how many directives the set holds.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.size
}

// NeedsToken says whether the viewer's token matters at all.
func (s *Set) NeedsToken() bool { return s != nil && s.withToken > 0 }

// NeedsDevice says whether the viewer's device matters at all.
func (s *Set) NeedsDevice() bool { return s != nil && s.withDevice > 0 }

// AllowsUsers says whether an override lets accounts in, so that it pays to find out whose a
// refused token is.
func (s *Set) AllowsUsers() bool { return s != nil && s.userAllows > 0 }

// Ban is the ban that hits the viewer, nil if none does.
func (s *Set) Ban(v *Viewer, now time.Time) *Directive {
	return s.newest(v, now, func(e *entry) bool { return e.Kind == Ban })
}

// Ruling is the override that lets the viewer in or refuses him, the newest of them; nil if there
// is none. Overrides that stand for a check are none.
func (s *Set) Ruling(v *Viewer, now time.Time) *Directive {
	return s.newest(v, now, func(e *entry) bool { return e.Kind == Override && e.Action != Limit && e.Check == "" })
}

// Answer is the override that is the word of the check v.Check on the viewer, nil if there is none.
func (s *Set) Answer(v *Viewer, now time.Time) *Directive {
	if !s.Speaks(v.Check) {
		return nil
	}
	return s.newest(v, now, func(e *entry) bool { return e.Check != "" && e.Action != Limit })
}

// Speaks says whether an override is the check's word on anybody.
func (s *Set) Speaks(check string) bool { return s != nil && s.checks[check] > 0 }

// Limit is the override that says how many sessions the viewer may have, nil if there is none.
func (s *Set) Limit(v *Viewer, now time.Time) *Directive {
	if s == nil || s.limits == 0 {
		return nil
	}
	return s.newest(v, now, func(e *entry) bool { return e.Action == Limit })
}

// Refusal is the ban, or else the ruling override, that keeps the viewer out; nil if none does.
func (s *Set) Refusal(v *Viewer, now time.Time) *Directive {
	if d := s.Ban(v, now); d != nil {
		return d
	}
	if d := s.Ruling(v, now); d != nil && d.Action == Deny {
		return d
	}
	return nil
}

// MayRefuse says whether a directive names the viewer's account, or his realm, so that it may keep
// him out somewhere.
func (s *Set) MayRefuse(v *Viewer) bool {
	if s.Len() == 0 {
		return false
	}
	realm := func(e *entry) bool { return e.User == "" && e.Realm == v.Realm }
	return len(s.users.get(account{v.Realm, v.User})) > 0 || slices.ContainsFunc(s.rest, realm)
}

// MayAllow says whether an override might let the viewer in who is not known yet, so that he must
// be judged although he brought nothing that a check could look at.
func (s *Set) MayAllow(v *Viewer, now time.Time) bool {
	if s.Len() == 0 {
		return false
	}
	if d := s.Ruling(v, now); d != nil && d.Action == Allow {
		return true
	}
	return len(s.checks) > 0
}

// newest is the latest of the wanted directives that hit the viewer.
func (s *Set) newest(v *Viewer, now time.Time, want func(*entry) bool) *Directive {
	if s.Len() == 0 {
		return nil
	}
	var best *entry
	look := func(list []*entry) {
		for _, e := range list {
			if want(e) && (best == nil || e.newer(&best.Directive)) && e.hits(v, now) {
				best = e
			}
		}
	}
	if v.User != "" {
		look(s.users.get(account{v.Realm, v.User}))
	}
	if !v.Token.IsZero() {
		look(s.tokens.get(v.Token))
	}
	if v.Device != "" {
		look(s.devices.get(v.Device))
	}
	if v.IP.IsValid() {
		for _, l := range s.lengths[familyOf(v.IP)] {
			if p, err := v.IP.Prefix(l.bits); err == nil {
				look(s.networks.get(p))
			}
		}
	}
	look(s.rest)
	if best == nil {
		return nil
	}
	return &best.Directive
}
