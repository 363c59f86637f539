package decide

import (
	"fmt"
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/policy"
)

// Limit is one more limit on the viewer, besides that of his account.
type Limit struct {
	By       string // policy.ByUser …
	OwnRule  bool   // only sessions of the rule count
	Sessions int
	Mode     access.Mode
	Cut      time.Duration
	Subject  access.Key
	// Name says whose seats it counts: "of this device in streams[2] …".
	Name string
}

// seats are the keys that a viewer's seat may be counted by.
type seats struct {
	user, device, token, ip access.Key
	// What stands in for an account or a token that there is not.
	noUser, noToken bool
}

// limits fills in by what limits the viewer's seat is taken, and under which keys it counts: that of
// his account always, the others where a limit of the policy may count by them.
func (j *judgement) limits(v *Verdict, req *access.Request, w welcome) {
	v.Limit, v.Mode, v.Cut, v.More, v.Counted = -1, access.EvictOldest, 0, nil, nil
	own := v.Rule.Limits
	s := seats{user: v.Subject}
	if counts := j.snapshot.Counts; counts != (policy.Counts{}) || j.rule.special {
		s = j.seatsOf(v, req, w)
		v.Counted = s.counted(counts)
	}
	byUser := false
	for i, l := range own {
		subject := s.of(l.By)
		name := s.name(l.By)
		if l.OwnRule {
			subject = j.deps.Keyer.Key("rule", v.Rule.LimitScope(), string(subject[:]))
			name += " in " + v.Rule.Name()
			v.count(subject)
		}
		if w.unlimited || !j.limitHolds(i, l, w) {
			continue
		}
		one := Limit{By: l.By, OwnRule: l.OwnRule, Sessions: l.Sessions, Mode: l.Mode, Cut: l.Cut, Subject: subject, Name: name}
		if one.ofUser() {
			byUser = true
			if one.Sessions = number(l, w); one.Sessions == 0 {
				continue
			}
		}
		v.limit(one)
	}
	if !byUser && v.Limit < 0 {
		v.Limit = numbered(w)
	}
}

// numbered is the limit where the rule names none for the account. A number that a check gives with its
// user counts, as it would in Flussonic.
func numbered(w welcome) int {
	if w.unlimited || w.sessions == 0 || w.user == "" {
		return -1
	}
	return w.sessions
}

// number is the policy's, or the check's own number up to the policy's ceiling; 0 for no limit.
func number(l *policy.Limit, w welcome) int {
	switch {
	case w.sessions > 0 && l.Max > 0:
		return min(w.sessions, l.Max)
	case w.sessions > 0:
		return w.sessions
	}
	return l.Sessions
}

func (l *Limit) ofUser() bool { return l.By == policy.ByUser && !l.OwnRule }

// limit adds one. The smallest of the account is the one that callers are told.
func (v *Verdict) limit(l Limit) {
	if l.ofUser() && (v.Limit < 0 || l.Sessions < v.Limit) {
		was := Limit{By: l.By, Sessions: v.Limit, Mode: v.Mode, Cut: v.Cut, Subject: l.Subject, Name: l.Name}
		v.Limit, v.Mode, v.Cut = l.Sessions, l.Mode, l.Cut
		if was.Sessions < 0 {
			return
		}
		l = was
	}
	v.More = append(v.More, l)
}

// orderLimit puts an operator's number in the place of all that the policy has for the account.
func (v *Verdict) orderLimit(n int) {
	v.Limit = n
	var more []Limit
	for _, l := range v.More {
		if !l.ofUser() {
			more = append(more, l)
		}
	}
	v.More = more
}

// Limited says whether any limit is on the viewer.
func (v *Verdict) Limited() bool { return v.Limit >= 0 || len(v.More) > 0 }

// LimitWords say what the ledger is asked for.
func (v *Verdict) LimitWords() string {
	text := ""
	if v.Limit >= 0 {
		text = fmt.Sprintf("at most %d seats, %s", v.Limit, v.Mode)
	}
	for i := range v.More {
		l := &v.More[i]
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("at most %d seats %s, %s", l.Sessions, l.Name, l.Mode)
	}
	return text
}

func (v *Verdict) count(k access.Key) {
	for _, have := range v.Counted {
		if have == k {
			return
		}
	}
	v.Counted = append(v.Counted, k)
}

// seatsOf names whom each kind of limit counts: without a token by token counts by address, and a device is
// the account's own, so that nobody takes another's seats by naming his device.
func (j *judgement) seatsOf(v *Verdict, req *access.Request, w welcome) seats {
	keyer := j.deps.Keyer
	s := seats{user: v.Subject, ip: keyer.Key("limit ip", household(req.IP))}
	bearer := w.bearer
	if bearer == "" {
		bearer = req.Token
	}
	if fp := keyer.Fingerprint(bearer); bearer != "" {
		s.token = keyer.Key("limit token", string(fp[:]))
	} else {
		s.token, s.noToken = s.ip, true
	}
	device := w.device
	if device == "" {
		device = req.Device
	}
	if w.user != "" {
		s.device = keyer.Key("limit device", device, w.realm, w.user)
		return s
	}
	s.device, s.noUser = keyer.Key("limit device", device), true
	return s
}

// name says whom a kind counts.
func (s *seats) name(by string) string {
	switch {
	case by == policy.ByDevice:
		return "of this device"
	case by == policy.ByUser && !s.noUser:
		return "of this user"
	case by == policy.ByIP || s.noToken:
		return "of this address"
	}
	return "of this token"
}

func (s *seats) of(by string) access.Key {
	switch by {
	case policy.ByDevice:
		return s.device
	case policy.ByToken:
		return s.token
	case policy.ByIP:
		return s.ip
	}
	return s.user
}

func (s *seats) counted(by policy.Counts) []access.Key {
	var v Verdict
	for _, k := range []struct {
		counts bool
		key    access.Key
	}{{by.Device, s.device}, {by.Token, s.token}, {by.IP, s.ip}} {
		if k.counts {
			v.count(k.key)
		}
	}
	return v.Counted
}

// household is the address, of version 6 its /64, which a single line may use as it likes.
func household(ip netip.Addr) string {
	if ip = ip.Unmap(); ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// limitHolds says whether the i-th limit of the rule counts for whom w names. One that cannot tell counts.
func (j *judgement) limitHolds(i int, l *policy.Limit, w welcome) bool {
	if l.When == nil {
		return true
	}
	f := j.sees()
	f.Learn(w.realm, w.user, w.sessions)
	holds, err := l.When.Holds(f)
	place := "limit"
	if len(j.rule.Limits) > 1 {
		place = fmt.Sprintf("limit[%d]", i)
	}
	switch {
	case err != nil:
		j.deps.Failed(fmt.Sprintf("streams[%d].%s.when", j.rule.Index, place))
		j.trail.add("limit when", failedResult, "the limit counts")
		return true
	case !holds:
		j.trail.add("limit when", "no match", "the limit does not count")
	}
	return holds
}
