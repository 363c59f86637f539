// Package policy reads the operator's file: strict parsing with line, column
// and suggestion, warnings, examples, the compiled immutable Snapshot that workers
// decide by, and the Projection that edges read (DESIGN.md §3 and §7).
package policy

import (
	"net/netip"
	"slices"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/condition"
	"usher.internal/libs/match"
)

// Snapshot is one revision of the policy, compiled and immutable.
type Snapshot struct {
	Revision  int64 // 0 until stored
	Source    string
	Defaults  Defaults
	Nodes     map[string]*Node
	Networks  map[string]*Network
	Checks    map[string]*Check
	Aliases   *Aliases  // nil: streams are asked for by their own names
	Clients   []*Client // in the file's order: the first that fits counts
	Own       []*Own    // the operator's own rules for all streams, in the file's order
	Rules     []*Rule   // in the file's order: first match wins
	Retention Retention
	Counts    Counts
	// Warnings are what `usher policy check` tells besides errors.
	Warnings []Problem
	// Located are where the policy looks at the country or the operator of an address: the
	// warnings for those who have no database of them.
	Located []Problem

	index *match.Index // nil in a snapshot that Parse did not make
}

// Defaults are the file's defaults, filled in.
type Defaults struct {
	Lease, Idle       time.Duration
	OnUnavailable     access.FailMode
	Grace, GraceKnown time.Duration
}

// Node is a streaming server or proxy that may ask.
type Node struct {
	Name   string
	Caller string // astra | flussonic | nginx | caddy | traefik
	// From are the addresses that the question itself may come from; empty means none.
	From []netip.Prefix
	// Edge that this node belongs to, "" for any.
	Edge string
	// URL says how a forward-auth caller's URL is read (also Alta's path); nil is the default reading.
	URL      *match.URL
	Token    []string // places of the token, in order: "query:token", "header:X", "cookie:x", "path:1"
	Segments string   // device | token
	// SessionKeys are what the session key is hashed over: token, stream, device, ip, user_agent.
	SessionKeys []string
	Device      string // place of a device id, "" none
	// ClientIPHeader is believed when the question comes from ClientIPTrust.
	ClientIPHeader string
	ClientIPTrust  []netip.Prefix
	Lease, Idle    time.Duration
	// Hold keeps the seat of a caller that asks once and shows no life; 0 where the caller shows life.
	Hold           time.Duration
	Budget         time.Duration
	RedirectStatus int
	// NoHeaders keeps user and limit from Flussonic.
	NoHeaders bool
	// Rechecks: the caller asks again when the lease that it was told is over.
	Rechecks bool
	// Shadow is on how many of a hundred viewers of this node the policy is only tried out;
	// Answer (nil: an allow) is what they get.
	Shadow int
	Answer *Check
	// Control is how the edge beside the node reaches its control API, nil: not at all.
	Control *Control
}

// ShowsLife says whether it is known after the opening that a viewer is still there: by his
// caller's questions, or by its session list.
func (n *Node) ShowsLife() bool { return n.Hold == 0 || n.Control != nil }

// Check is a configured verifier or middleware.
type Check struct {
	Name, Type string
	// Realm of the users that it names; "main" unless set.
	Realm string
	// Upstream is true for middlewares: they cost an outside call.
	Upstream bool
	// InAddress is true for verifiers that judge viewers without a token too.
	InAddress bool
	// PublicPlaylists says that edges hand out playlists of its users; PlaylistTrust are proxies
	// whose X-Forwarded-For they believe then.
	PublicPlaylists bool
	PlaylistTrust   []netip.Prefix
	// NamesUser is false when this check, as configured, never names a user.
	NamesUser bool
	Timeout   time.Duration // of a middleware, 0 for verifiers
	// OnUnavailable of the check, "" to take the rule's.
	OnUnavailable access.FailMode
	// For narrows the questions that it is asked, nil for all.
	For *For
	// From says whose number of sessions counts: FromMiddleware, FromPolicy, or "" for the
	// kind's default, which is the middleware's number, but the rule's own where OddNumber.
	From string
	// OddNumber says that the middleware's number is not meant as a limit of screens.
	OddNumber bool
	// Grant is how long a yes is kept where the middleware says nothing of it, 0 for not at all;
	// GrantMax the ceiling, 0 for none.
	Grant, GrantMax time.Duration
	// Options are the kind's own, decoded: *securetoken.Options, *http.Options …
	Options any
}

// AuthMode says how a rule's checks are combined.
type AuthMode string

// The auth modes of a rule.
const (
	AuthAllow AuthMode = "allow"
	AuthDeny  AuthMode = "deny"
	AuthAny   AuthMode = "any"
	AuthAll   AuthMode = "all"
)

// Rule is one entry of streams.
type Rule struct {
	// Index in the file, from 0, and Line of the entry.
	Index, Line int
	Match       *match.Glob
	// When says with Match whether the rule is the stream's, nil for always. It never reads the user.
	When *condition.Expr
	// Own are the operator's own rules for these streams, after those of the snapshot.
	Own         []*Own
	Allow, Deny Lists
	// Domains may embed the player; empty means any. "*.x" is any depth below x, not x.
	// DenyEmptyReferer refuses who does not say which page he comes from.
	Domains          []string
	DenyEmptyReferer bool
	Auth             AuthMode
	Checks           []*Check
	Limits           []*Limit // all are taken together
	Archive          *Archive // nil: all of it
	// Shadow and Answer are as a node's; where both try out, the rule's Answer counts.
	Shadow int
	Answer *Check
	// OnDeny maps a reason (or "*") to where the viewer is sent.
	OnDeny        map[access.Reason]string
	Lease         time.Duration // 0: the node's
	OnUnavailable access.FailMode
	Uncounted     access.FailMode // allow | deny
	Grace         time.Duration
	GraceKnown    time.Duration
	Examples      []Example

	name   string
	digest uint32 // of all by which it judges
}

// Name is how the rule is called in steps and messages: `streams[1] "**"`.
func (r *Rule) Name() string { return r.name }

// Upstream says whether the rule may ask a middleware.
func (r *Rule) Upstream() bool {
	if r.Answer != nil && r.Answer.Upstream {
		return true
	}
	for _, c := range r.Checks {
		if c.Upstream {
			return true
		}
	}
	return false
}

// Tokenless says whether the rule may let a viewer in who brings no token: by
// auth: allow, by an allow list, by an own rule, by a middleware, which judges the whole query, or by a
// verifier whose proof stands in the address.
func (r *Rule) Tokenless() bool {
	if r.When != nil && r.When.NeedsToken() {
		return false
	}
	if r.Allow.tokenless() || r.Shadow > 0 || slices.ContainsFunc(r.Own, (*Own).tokenless) {
		return true
	}
	switch r.Auth {
	case AuthAllow:
		return true
	case AuthAll:
		return !slices.ContainsFunc(r.Checks, func(c *Check) bool { return !c.tokenless() })
	default:
		return slices.ContainsFunc(r.Checks, (*Check).tokenless)
	}
}

// tokenless says whether the check may say yes to a viewer without a token.
func (c *Check) tokenless() bool { return c.Upstream || c.InAddress }

// Lists are the constructor lists of allow and deny.
type Lists struct {
	// Tokens are kept as they stand in the file, in clear or sealed, until the
	// engine fingerprints them: see TokenKey and Seal.
	Tokens  []string
	IPs     []netip.Prefix
	Network Networks
	Country []string // upper case
	ASN     []uint32 // numbers of autonomous systems
	UA      []string // substrings, case-sensitive
}

// Empty says whether nothing is listed.
func (l *Lists) Empty() bool { return len(l.Tokens) == 0 && !l.tokenless() }

// tokenless says whether a viewer without a token can stand in a list.
func (l *Lists) tokenless() bool {
	return len(l.IPs)+len(l.Country)+len(l.ASN)+len(l.UA) > 0 || !l.Network.Empty()
}

// Limit is the limit on simultaneous sessions.
type Limit struct {
	Sessions int    // when the check gives no number; 0 means: only the check's number counts
	Max      int    // ceiling for the check's number, 0 none
	By       string // ByUser, ByDevice, ByToken or ByIP
	// OwnRule says that only sessions of the limit's own rule count.
	OwnRule bool
	Mode    access.Mode
	// Cut is how long a soft limit may be exceeded, 0 for the default.
	Cut time.Duration
	// Shadow is for how many of a hundred subjects the limit is only tried out: they take seats
	// beyond it.
	Shadow int
	// When says whether the limit counts, nil for always. It may read the user.
	When *condition.Expr
}

// Retention of stored rows.
type Retention struct {
	Steps, Decisions, Sessions time.Duration
	// Usage is how long sums by day are kept.
	Usage time.Duration
	// Grants is how long a check's last word on a viewer is kept.
	Grants time.Duration
	// Addresses is after what time addresses are shortened to their networks; 0: never.
	Addresses time.Duration
}

// DefaultRetention is what a policy that says nothing keeps.
func DefaultRetention() Retention {
	return Retention{Steps: 3 * day, Decisions: 30 * day, Sessions: 90 * day, Usage: 762 * day, Grants: 30 * day, Addresses: 30 * day}
}

// Rule finds the first rule whose match fits the stream; nil if none does.
func (s *Snapshot) Rule(stream string) *Rule {
	return s.RuleWhere(stream, func(*Rule) bool { return true })
}

// RuleWhere finds the first rule whose match fits the stream and that holds accepts, asking
// it of one rule after the other; nil if there is none.
func (s *Snapshot) RuleWhere(stream string, holds func(*Rule) bool) *Rule {
	if s.index == nil {
		for _, r := range s.Rules {
			if r.Match.Match(stream) && holds(r) {
				return r
			}
		}
		return nil
	}
	for i := s.index.First(stream); i >= 0; i = s.index.Next(stream, i) {
		if holds(s.Rules[i]) {
			return s.Rules[i]
		}
	}
	return nil
}

// indexOf files the rules by their match.
func indexOf(rules []*Rule) *match.Index {
	globs := make([]*match.Glob, len(rules))
	for i, r := range rules {
		globs[i] = r.Match
	}
	return match.NewIndex(globs)
}
