package policy

import (
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

const (
	// maxSessions bounds a limit, so that it fits every column and message.
	maxSessions = 1_000_000
	// maxLimits bounds the limits of a rule.
	maxLimits = 8
	// A soft limit is exceeded for so long at least and at most.
	minCut, maxCut = time.Second, time.Hour
)

// Whose sessions a limit counts.
const (
	ByUser   = "user"
	ByDevice = "device"
	ByToken  = "token"
	ByIP     = "ip"
)

// The scopes of a limit: all of its subject's sessions, or those of its rule alone.
const (
	scopeAll  = "all"
	scopeRule = "rule"
)

// limits compiles one limit or a list of them.
func (c *compiler) limits(at path, f *fileLimits) []*Limit {
	switch {
	case f == nil:
		return nil
	case f.list == nil:
		return []*Limit{c.limit(at, &f.one)}
	case len(f.list) == 0 || len(f.list) > maxLimits:
		c.errorf(at, "", "has %d limits; want 1 to %d, or leave it out for no limit", len(f.list), maxLimits)
		return nil
	}
	list := make([]*Limit, len(f.list))
	for i := range f.list {
		list[i] = c.limit(at.sub(i), &f.list[i])
		if list[i].Shadow != list[0].Shadow {
			c.errorf(at.sub(i), "", "has another enforce than the first limit; a seat is tried out for all limits of a rule or for none")
		}
	}
	return list
}

func (c *compiler) limit(at path, f *fileLimit) *Limit {
	l := &Limit{Shadow: c.enforce(at.sub("enforce"), f.Enforce)}
	if f.Sessions != nil {
		if l.Sessions = *f.Sessions; l.Sessions < 1 || l.Sessions > maxSessions {
			c.errorf(at.sub("sessions"), "", "is %d; want 1 to %d, leave it out where only the check's number counts, and use auth: deny to let nobody in",
				l.Sessions, maxSessions)
		}
	}
	if f.Max != nil {
		if l.Max = *f.Max; l.Max < 1 || l.Max > maxSessions {
			c.errorf(at.sub("max"), "", "is %d; want 1 to %d, or leave it out for no ceiling", l.Max, maxSessions)
		}
	}
	l.By = choice(c, at.sub("by"), f.By, ByUser, ByUser, ByDevice, ByToken, ByIP)
	l.OwnRule = choice(c, at.sub("scope"), f.Scope, scopeAll, scopeAll, scopeRule) == scopeRule
	l.Mode = choice(c, at.sub("mode"), f.Mode, access.EvictOldest, access.EvictOldest, access.RefuseNew, access.Soft)
	if f.When != nil {
		l.When = c.expression(at.sub("when"), *f.When)
	}
	l.Cut = c.duration(at.sub("cut_after"), f.CutAfter, 0, minCut, maxCut)
	if f.CutAfter != nil && l.Mode != access.Soft {
		c.errorf(at.sub("cut_after"), "", "is for mode: soft, which lets a session in beyond the limit for so long")
	}
	c.ownNumber(at, f, l)
	return l
}

// ownNumber holds to it that a check's number is that of the user over all rules: any other limit
// has its own.
func (c *compiler) ownNumber(at path, f *fileLimit, l *Limit) {
	if l.OfUser() {
		return
	}
	if f.Max != nil {
		c.errorf(at.sub("max"), "", "is the ceiling of a check's number, which is of the user over all rules; this limit %s goes by its own sessions", l.Words())
	}
	if f.Sessions == nil {
		c.errorf(at, "", "needs sessions: a check's number is of the user over all rules, and not %s", l.Words())
	}
}

// OfUser says whether the limit is the user's over all rules: the one that a check may number.
func (l *Limit) OfUser() bool { return l.By == ByUser && !l.OwnRule }

// Words say whose sessions the limit counts: "of a device in this rule".
func (l *Limit) Words() string {
	words := map[string]string{ByUser: "of a user", ByDevice: "of a device", ByToken: "of a token", ByIP: "of an address"}[l.By]
	if l.OwnRule {
		words += " in this rule"
	}
	return words
}

// Counts are the kinds by which any limit of the policy counts sessions of all rules: each
// session must be counted by them, whatever its own rule says.
type Counts struct{ Device, Token, IP bool }

func (c *compiler) counts() {
	for _, r := range c.snapshot.Rules {
		for _, l := range r.Limits {
			if l.OwnRule {
				continue
			}
			c.snapshot.Counts.Device = c.snapshot.Counts.Device || l.By == ByDevice
			c.snapshot.Counts.Token = c.snapshot.Counts.Token || l.By == ByToken
			c.snapshot.Counts.IP = c.snapshot.Counts.IP || l.By == ByIP
		}
	}
}

// LimitScope names the rule for limits of its own. It does not change when the rule moves in the file.
func (r *Rule) LimitScope() string {
	if r.When == nil {
		return r.Match.String()
	}
	return r.Match.String() + "\x00" + r.When.String()
}

// warnLimits says what of a rule's limits is hardly meant. silent are the nodes that show no life.
func (c *compiler) warnLimits(at path, r *Rule, silent string, hold config.Duration) {
	list := c.doc.Has(at.sub(0)...)
	for i, l := range r.Limits {
		own := at
		if list {
			own = at.sub(i)
		}
		if l.By == ByUser {
			c.warnNameless(own, r)
		}
		if l.By == ByDevice {
			c.warnDeviceless(own)
		}
		if silent != "" {
			c.warnSilent(own, l, silent, hold)
		}
		if j := r.never(i); j >= 0 {
			c.warnf(own, "never refuses or ends anybody: limit %d of this rule, of %d sessions %s, is full before it",
				j+1, r.Limits[j].Sessions, r.Limits[j].Words())
		}
	}
}

// never finds a limit of the rule that is always full when the i-th is, and does then what that
// one would; -1 if there is none.
func (r *Rule) never(i int) int {
	l := r.Limits[i]
	for j, o := range r.Limits {
		within := o.By == l.By || o.By == ByUser && l.By == ByDevice
		if j == i || !within || o.OwnRule && !l.OwnRule || o.When != nil || o.Sessions == 0 || l.Sessions == 0 || o.Mode == access.Soft {
			continue
		}
		if o.OfUser() && o.Max == 0 && (l.Max > 0 || !l.OfUser()) || o.OfUser() && l.OfUser() && l.Max > 0 && l.Max < o.Max {
			continue // a check's number may raise the other
		}
		most := o.Sessions
		if o.OfUser() && !l.OfUser() {
			most = max(most, o.Max)
		}
		switch {
		case most < l.Sessions:
			return j
		case most == l.Sessions && (o.Mode == access.RefuseNew || o.Mode == l.Mode) && (j < i || o.Mode != l.Mode):
			return j
		}
	}
	return -1
}

// warnDeviceless says where a limit by device has only addresses and user agents to go by.
func (c *compiler) warnDeviceless(at path) {
	for _, n := range c.snapshot.Nodes {
		if n.Device != "" {
			return
		}
	}
	c.warnf(at, "counts by device, but no node says where a device's id stands (device): unless a check names it, a device is its "+
		"address and user agent, and equal boxes behind one address are one")
}
