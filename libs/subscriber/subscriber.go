// Package subscriber is the vocabulary of an operator's own subscribers, for those who have
// no middleware: accounts, packages of streams, passwords, and the forms in which
// they are imported and handed out. It keeps and asks nothing itself; libs/pgstore does.
package subscriber

import (
	"fmt"
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
)

// Account is one subscriber as a check sees him. It is immutable.
type Account struct {
	// Realm and User name him in limits, bans and history.
	Realm, User string
	// Name is a label for people, "" if he has none.
	Name string
	// Token is the fingerprint of his token, zero if he has none.
	Token access.Key
	// Login and Password, the PHC text of its hash, are "" if he has none.
	Login, Password string
	// Packages are the names of what he has bought.
	Packages []string
	// Sessions is his own limit, 0 for the rule's.
	Sessions int
	// Expires is when his subscription ends, zero for never.
	Expires time.Time
	// Networks are the only ones that he may watch from; none: from anywhere.
	Networks []netip.Prefix
	// Blocked is when an operator blocked him, zero if he is not.
	Blocked time.Time
}

// Denial is why an account may not watch now.
type Denial struct {
	Reason access.Reason
	// Text says it in words for an operator, without secrets.
	Text string
}

// Refused says why the account may not watch anything from the address at that time,
// nil if it may.
func (a *Account) Refused(ip netip.Addr, now time.Time) *Denial {
	switch {
	case !a.Blocked.IsZero():
		return &Denial{access.Blocked, fmt.Sprintf("subscriber %s is blocked since %s", a.User, day(a.Blocked))}
	case !a.Expires.IsZero() && !now.Before(a.Expires):
		return &Denial{access.Expired, fmt.Sprintf("the subscription of %s ended on %s", a.User, day(a.Expires))}
	case len(a.Networks) > 0 && !a.from(ip):
		return &Denial{access.WrongIP, fmt.Sprintf("subscriber %s may not watch from this address", a.User)}
	}
	return nil
}

func (a *Account) from(ip netip.Addr) bool {
	for _, p := range a.Networks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// Package is a set of streams that is sold together. It is immutable.
type Package struct {
	Name string
	// Streams are the patterns as the operator wrote them.
	Streams []string

	exact map[string]struct{}
	globs []*match.Glob
}

// NewPackage compiles the patterns; the error says which of them is wrong.
func NewPackage(name string, streams []string) (*Package, error) {
	p := &Package{Name: name, Streams: streams, exact: make(map[string]struct{}, len(streams))}
	for _, s := range streams {
		g, err := match.ParseGlob(s)
		if err != nil {
			return nil, fmt.Errorf("package %s: streams: %q: %w", name, s, err)
		}
		if g.Literal() {
			p.exact[s] = struct{}{}
		} else {
			p.globs = append(p.globs, g)
		}
	}
	return p, nil
}

// Has says whether the stream is in the package.
func (p *Package) Has(stream string) bool {
	if _, ok := p.exact[stream]; ok {
		return true
	}
	for _, g := range p.globs {
		if g.Match(stream) {
			return true
		}
	}
	return false
}

// Exact says whether the pattern is the name of one stream.
func Exact(pattern string) bool {
	g, err := match.ParseGlob(pattern)
	return err == nil && g.Literal()
}

// Packages are those of a realm, by name. They are immutable.
type Packages map[string]*Package

// Has finds the first of the account's packages that holds the stream, nil if none does.
func (ps Packages) Has(a *Account, stream string) *Package {
	for _, name := range a.Packages {
		if p := ps[name]; p != nil && p.Has(stream) {
			return p
		}
	}
	return nil
}

// AllPackage is the package of everything that a subscriber gets who was given none by
// name. It is made when it is first needed, and is a package like any other.
const AllPackage = "all"
