// Package directive holds what operators order beside the policy: bans, and overrides for the
// night. A Directive names whom it hits by criteria, all of which must hold; a Set finds those
// that hit a viewer in well under a microsecond; a Book keeps the Set up to date from what
// Postgres and the control stream tell. It knows neither NATS nor SQL.
//
// A directive never changes but for being revoked, and that is final. So it does not matter in
// which order, how often and from whom a process hears of it.
package directive

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
)

// Kind tells bans from overrides. It is also the kind of the control message.
type Kind string

// The kinds.
const (
	Ban      Kind = "ban"
	Override Kind = "override"
)

// Action is what a directive does to whom it hits. A ban denies.
type Action string

// The actions.
const (
	Deny  Action = "deny"
	Allow Action = "allow"
	Limit Action = "limit"
)

// MaxOverride is how long an override lasts at most: whatever is meant for longer belongs into
// the policy.
const MaxOverride = 30 * 24 * time.Hour

// Directive is an operator's ban or override. Zero criteria hold for everybody.
type Directive struct {
	ID     uuid.UUID
	Kind   Kind
	Action Action
	// Limit is how many sessions Action Limit gives.
	Limit int

	// Realm and User name an account; Realm alone everybody of whom a check says that he is of it.
	Realm, User string
	// Network holds the viewer's address.
	Network netip.Prefix
	// Stream is a pattern (match.Glob), after aliasing; Node a node's name.
	Stream, Node string
	// Check makes an override the word of this check, which is not asked then.
	Check string
	// Device is the id that the session list shows.
	Device string
	// Token is the fingerprint of the viewer's token.
	Token access.Key

	// Until is the end, zero for a ban without one. At is when it was given.
	Until, At      time.Time
	Reason, Author string
}

var (
	errNoCriterion = errors.New("names nobody: give at least one of user, realm, address, stream, node, device, token or check")
	errNoReason    = errors.New("has no reason: whoever finds it at night must know what it is for")
)

// Validate says what is wrong with the directive, nil if it may be given.
func (d *Directive) Validate() error {
	switch {
	case d.ID == uuid.Nil || d.At.IsZero():
		return errors.New("has no id or time")
	case d.Reason == "":
		return errNoReason
	case d.Author == "":
		return errors.New("has no author")
	case !d.Until.IsZero() && !d.Until.After(d.At):
		return errors.New("ends before it begins")
	case d.Kind == Override && d.Until.IsZero():
		return errors.New("has no end: an override needs one, at most 30 days from now")
	case d.Kind == Override && d.Until.Sub(d.At) > MaxOverride:
		return errors.New("lasts longer than 30 days: what is meant for longer belongs into the policy")
	}
	return errors.Join(d.validAction(), d.validCriteria())
}

func (d *Directive) validAction() error {
	switch {
	case d.Kind != Ban && d.Kind != Override:
		return fmt.Errorf("kind %q is not known", d.Kind)
	case d.Kind == Ban && d.Action != Deny:
		return errors.New("a ban denies")
	case d.Kind == Ban && d.Check != "":
		return errors.New("a ban has nothing to do with checks; an override may name one")
	case d.Action != Deny && d.Action != Allow && d.Action != Limit:
		return fmt.Errorf("action %q is not known", d.Action)
	case d.Action == Limit && d.Limit < 1:
		return errors.New("a limit gives one session at least; deny refuses")
	case d.Action != Limit && d.Limit != 0:
		return errors.New("only the action limit has a number")
	}
	return nil
}

func (d *Directive) validCriteria() error {
	if d.Realm == "" && !d.Network.IsValid() && d.Stream == "" && d.Node == "" && d.Check == "" && d.Device == "" && d.Token.IsZero() {
		if d.User == "" {
			return errNoCriterion
		}
	}
	if d.User != "" && d.Realm == "" {
		return errors.New("a user has a realm: every subscriber system has a user 17")
	}
	if d.Network.IsValid() && d.Network != d.Network.Masked() {
		return fmt.Errorf("network %s has address bits beyond its length", d.Network)
	}
	if d.Stream != "" {
		if _, err := match.ParseGlob(d.Stream); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	for _, text := range []string{d.Realm, d.User, d.Stream, d.Node, d.Check, d.Device} {
		if access.Clean(text, access.MaxName) != text {
			return fmt.Errorf("%.20q… is longer than %d bytes or holds control characters", text, access.MaxName)
		}
	}
	for _, text := range []string{d.Reason, d.Author} {
		if access.Clean(text, access.MaxName) != text {
			return fmt.Errorf("reason and author are one line each of at most %d bytes", access.MaxName)
		}
	}
	return nil
}

// Active says whether the directive has not ended by itself.
func (d *Directive) Active(now time.Time) bool { return d.Until.IsZero() || now.Before(d.Until) }

// NeedsUser says whether it can be told only of a viewer whose account is known.
func (d *Directive) NeedsUser() bool { return d.Realm != "" }

// Broad networks are those that hardly anybody means: of IPv4 more than a /8, of IPv6 than a /16.
const (
	broadIPv4 = 8
	broadIPv6 = 16
)

// Everybody says whether it hits as good as everybody, whoever plays now.
func (d *Directive) Everybody() bool {
	if d.Realm != "" || d.Node != "" || d.Check != "" || d.Device != "" || !d.Token.IsZero() || strings.Trim(d.Stream, "*/") != "" {
		return false
	}
	switch {
	case !d.Network.IsValid():
		return d.Stream != ""
	case d.Network.Addr().Is4():
		return d.Network.Bits() < broadIPv4
	}
	return d.Network.Bits() < broadIPv6
}

// newer says whether d was given after o: an operator's later word stands.
func (d *Directive) newer(o *Directive) bool {
	if !d.At.Equal(o.At) {
		return d.At.After(o.At)
	}
	return strings.Compare(string(d.ID[:]), string(o.ID[:])) > 0
}

// Words say who ordered it, until when and why, for the steps of a decision.
func (d *Directive) Words() string {
	until := "without end"
	if !d.Until.IsZero() {
		until = "until " + d.Until.UTC().Format("2006-01-02 15:04:05Z")
	}
	return fmt.Sprintf("%s %s by %s, %s: %s", d.Kind, d.ID, d.Author, until, d.Reason)
}

// Criteria name whom it hits, as the command line's flags would.
func (d *Directive) Criteria() string {
	var parts []string
	add := func(what, value string) {
		if value != "" {
			parts = append(parts, what+" "+value)
		}
	}
	switch {
	case d.User != "" && (d.Realm != "main" || strings.Contains(d.User, "/")):
		// A user tv/17 of realm main must not look like user 17 of realm tv.
		add("user", d.Realm+"/"+d.User)
	case d.User != "":
		add("user", d.User)
	default:
		add("realm", d.Realm)
	}
	if d.Network.IsValid() {
		network := d.Network.String()
		if d.Network.IsSingleIP() {
			network = d.Network.Addr().String()
		}
		add("ip", network)
	}
	add("stream", d.Stream)
	add("node", d.Node)
	add("check", d.Check)
	add("device", d.Device)
	if !d.Token.IsZero() {
		add("token", d.Token.String())
	}
	return strings.Join(parts, ", ")
}
