package access

import (
	"maps"
	"slices"
)

// DefaultRealm holds the users of checks that name no realm.
const DefaultRealm = "main"

// Outcome is what the viewer gets.
type Outcome string

// The outcomes, as they stand in usher.decisions.outcome.
const (
	Allow    Outcome = "allow"
	Deny     Outcome = "deny"
	Redirect Outcome = "redirect"
)

// Reason is the one code that says why a decision came out as it did.
type Reason string

// Reasons of a decision. They are stored and shown; never rename one.
const (
	// Allowed by a check, a rule, or an explicit auth: allow.
	Granted   Reason = "granted"
	AllowRule Reason = "allow_rule"
	Client    Reason = "client"
	// Denied by the policy.
	NoRule     Reason = "no_rule"
	DenyRule   Reason = "deny_rule"
	DomainLock Reason = "domain"
	NoToken    Reason = "no_token"
	BadToken   Reason = "bad_token"
	Expired    Reason = "expired"
	NotYet     Reason = "not_yet_valid"
	WrongIP    Reason = "wrong_ip"
	Refused    Reason = "refused"
	NoAlias    Reason = "no_alias"
	ClientEnd  Reason = "client_ended"
	Blocked    Reason = "blocked"
	NoPackage  Reason = "no_package"
	NoArchive  Reason = "archive"
	// Denied by the ledger.
	Limit   Reason = "limit"
	Evicted Reason = "evicted"
	Killed  Reason = "killed"
	// Decided by a directive: an operator's ban or override.
	Banned     Reason = "banned"
	Overridden Reason = "override"
	// Decided because something is down.
	Unavailable Reason = "unavailable"
	Grace       Reason = "grace"
	Uncounted   Reason = "uncounted"
	// Let in although the policy says otherwise, because it is only tried out here.
	Shadow   Reason = "shadow"
	Overload Reason = "overload"
	// Refused by the edge alone.
	UnknownNode Reason = "unknown_node"
	WrongSource Reason = "wrong_source"
	BadRequest  Reason = "bad_request"
	NoSession   Reason = "no_session"
	// Refused by a worker because of the edge.
	WrongEdge Reason = "wrong_edge"
)

// Text is what the reason means, in words for an operator.
func (r Reason) Text() string {
	if t, ok := reasonText[r]; ok {
		return t
	}
	return string(r)
}

var reasonText = map[Reason]string{
	Granted:     "a check accepted the viewer",
	AllowRule:   "an allow rule of the policy matched",
	Client:      "a machine that the policy lists under clients",
	NoRule:      "no stream rule of the policy matches",
	DenyRule:    "a deny rule of the policy matched",
	DomainLock:  "the page that embeds the player is not in the rule's domains",
	NoToken:     "the viewer brought no token and no check works without one",
	BadToken:    "the token is not valid for this stream and viewer",
	Expired:     "the token has expired",
	NotYet:      "the token is not valid yet",
	WrongIP:     "the token belongs to another address",
	Refused:     "the middleware refused the viewer",
	NoAlias:     "the name that was asked for is not one that leads to a stream",
	ClientEnd:   "the policy's time for this client is over",
	Blocked:     "the subscriber is blocked",
	NoPackage:   "the subscriber's packages do not hold this stream",
	NoArchive:   "the part of the archive that was asked for is not open to the viewer",
	Limit:       "all seats of the account are taken",
	Evicted:     "a newer session of the account took this seat",
	Killed:      "an operator ended this session",
	Banned:      "an operator's ban is in force",
	Overridden:  "an operator's override decided in place of the policy",
	Unavailable: "the check could not be asked and the fail mode denies",
	Grace:       "the check could not be asked; the viewer is known and may go on",
	Uncounted:   "the session ledger is away; the viewer was let in uncounted",
	Shadow:      "the policy is tried out here: it would have refused the viewer, and he was let in",
	Overload:    "no worker had room within the time the caller gives",
	UnknownNode: "the policy does not list this node",
	WrongSource: "the question came from an address that the policy does not give to this node",
	BadRequest:  "the question could not be understood",
	NoSession:   "no token, and no running session of this stream and device to follow",
	WrongEdge:   "the policy gives this node to another edge",
}

// CloseReason says why a session ended, as in usher.sessions.close_reason.
type CloseReason string

// Reasons for the end of a session. They are stored and shown; never rename one.
const (
	CloseIdle    CloseReason = "idle"    // no sign of life for the node's idle time
	CloseExpired CloseReason = "expired" // the ledger heard nothing for the seat's time
	CloseStopped CloseReason = "stopped" // the caller said so
	CloseZapped  CloseReason = "zapped"  // the device opened another stream
	CloseEvicted CloseReason = "evicted" // a newer session took the seat
	CloseKilled  CloseReason = "killed"  // an operator ended it
	CloseBanned  CloseReason = "banned"  // an operator's ban hit it
	// CloseOverridden: an operator's override that denies hit it.
	CloseOverridden CloseReason = "override"
	CloseIDReused   CloseReason = "id_reused"
	CloseDenied     CloseReason = "denied"      // a re-decision came out as deny
	CloseEdge       CloseReason = "edge_denied" // the edge had already denied under the same id
)

// Mode is what the ledger does when a limit is full.
type Mode string

// The modes of a limit (DESIGN.md §3, The ledger).
const (
	EvictOldest Mode = "evict_oldest"
	RefuseNew   Mode = "refuse"
	// Soft lets the new one in beyond the limit for a while, then evicts the oldest beyond it.
	Soft Mode = "soft"
)

// FailMode is what happens when nobody can tell whether a viewer may watch.
type FailMode string

// The fail modes (DESIGN.md §3, When something is down).
const (
	FailDeny  FailMode = "deny"
	FailAllow FailMode = "allow"
	FailGrace FailMode = "grace"
)

// Reasons are all reasons in the order of their codes.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasonText)) }
