package directive

import (
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
)

// Viewer is whom directives are held against. What is not known of him is left zero, and hits
// nothing.
type Viewer struct {
	Realm, User          string
	IP                   netip.Addr
	Stream, Node, Device string
	Token                access.Key
	// Check is the check that is about to be asked, or that let him in.
	Check string
}

// entry is a directive made ready.
type entry struct {
	Directive
	glob *match.Glob // nil without Stream
}

// newEntry is false for a pattern that cannot be read: such a directive hits nobody.
func newEntry(d Directive) (*entry, bool) {
	e := &entry{Directive: d}
	if d.Stream != "" {
		g, err := match.ParseGlob(d.Stream)
		if err != nil {
			return nil, false
		}
		e.glob = g
	}
	return e, true
}

// hits says whether all criteria hold, and the directive has not ended.
func (e *entry) hits(v *Viewer, now time.Time) bool {
	switch {
	case e.User != "" && e.User != v.User,
		e.Realm != "" && e.Realm != v.Realm,
		e.Network.IsValid() && !e.Network.Contains(v.IP),
		e.Node != "" && e.Node != v.Node,
		e.Device != "" && e.Device != v.Device,
		e.Check != "" && e.Check != v.Check,
		!e.Token.IsZero() && e.Token != v.Token,
		e.glob != nil && !e.glob.Match(v.Stream):
		return false
	}
	return e.Active(now)
}
