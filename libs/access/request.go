// Package access is the vocabulary of Usher: the question a caller asks, the
// decision that answers it, and the reasons and steps that explain it. It knows
// neither HTTP nor NATS nor SQL (DESIGN.md §1).
package access

import (
	"net/netip"
	"time"

	"github.com/google/uuid"
)

// Request is one question of a caller in our own vocabulary, after the edge has
// made every text valid UTF-8 without NUL and capped its length (Clean).
type Request struct {
	// ID names the question for ever: a UUIDv7 made at the edge. Its time is
	// the time of the audit row.
	ID uuid.UUID
	// Region and Edge say where the question was asked; Node and Caller who asked.
	Region, Edge, Node, Caller string
	// Key is the session key, computed by the edge alone (DESIGN.md §3).
	Key Key
	// Session is the running session that this question re-decides when its
	// lease is due; uuid.Nil for a new question.
	Session uuid.UUID
	// Replaces is the session that held the same key before for somebody else:
	// it is closed as id_reused. uuid.Nil when there is none.
	Replaces uuid.UUID
	// StillPlaying says that the session under Key was zapped and went on
	// showing life past the tolerance: it takes a seat of its own again.
	StillPlaying bool
	// CameBack says that the session under Key was zapped and goes on, and that its device has
	// left the other stream as far as its edge can tell.
	CameBack bool
	// Stream is the channel, file or mount by the caller's own name; after aliasing by
	// its internal one.
	Stream string
	// Requested is the name that the viewer asked for where it was an alias, else "". Known
	// is the stream that it led to when a running session opened, "" if it led nowhere else.
	Requested, Known string
	// Token is the viewer's bearer token, "" if none. It never reaches a log,
	// a trace, a metric or a table.
	Token string
	// Query is the viewer's raw query string without "?", byte for byte.
	Query string
	// Path is the path that the viewer asked for, without query.
	Path string
	// Host is the viewer's Host header (or the host of Astra's X-Real-Origin).
	Host string
	// IP is the viewer's address, 4-in-6 unmapped and without zone.
	IP netip.Addr
	// UserAgent and Referer are the viewer's own headers.
	UserAgent, Referer string
	// Device is an id from a named query parameter; else the edge makes one
	// from address prefix and user agent.
	Device string
	// Channel and CallerSession are the caller's own ids as sent (Astra's
	// X-Channel-ID and X-Session-ID), "" where the caller has none.
	Channel, CallerSession string
	// Protocol is the caller's word for the delivery protocol, "" if unknown.
	Protocol string
	// Action is what the viewer wants to do; "" is Play.
	Action Action
	// Update says that the caller asks again about a session that it has already: it goes on
	// by its id, also from another address (Flussonic's update_session).
	Update bool
	// Archive is the recorded part that is asked for; the zero Archive is the live stream.
	Archive Archive
	// Received is when the edge got the question, by the edge's clock.
	Received time.Time
}

// Decision answers a Request.
type Decision struct {
	// ID is the id of the audit row that stands for this answer. It differs from
	// the question's id when the answer repeats an earlier row.
	ID      uuid.UUID
	Outcome Outcome
	Reason  Reason
	// Text says in words what an operator would want to read, without secrets.
	Text string
	// Realm and User name the account; User is "" where no check gave one.
	Realm, User string
	// Stream is the stream's own name where the viewer asked by an alias, else "".
	Stream string
	// SessionName is a label for the caller's own session list (X-Session-Name).
	SessionName string
	// Session is the live session, uuid.Nil unless Outcome is Allow.
	Session uuid.UUID
	// MaxSessions is the limit in force, 0 if none.
	MaxSessions int
	// Lease is how long the edge may answer from memory, counted from sending
	// the question; 0 for denials.
	Lease time.Duration
	// Location is where a denied or redirected viewer is sent, "" if nowhere.
	Location string
	// Revision is the policy revision that decided.
	Revision int64
	// Unaccounted marks an allow given without a seat (ledger away, or a fail mode).
	Unaccounted bool
	// Unknown marks a denial because nobody could tell, where the fail mode does not want a
	// denial for its own sake: a caller that can keep what it knew should.
	Unknown bool
	// Reach is how far into the archive an allowed viewer may go, nil for all of it.
	Reach *Reach
}

// Action is what a viewer wants to do with a stream.
type Action string

// The actions.
const (
	Play    Action = "play"
	Publish Action = "publish"
)

// Step is one thing that was looked at on the way to a decision.
type Step struct {
	// Name is the stage: "parse", "rule", "deny ip", "check site", "limit" …
	Name string `json:"n"`
	// Result is a short code: "match", "allow", "deny", "not mine", "unavailable" …
	Result string `json:"r"`
	// Text explains in words, without secrets; may be "".
	Text string `json:"t,omitempty"`
	// Micros is how long the step took, in microseconds.
	Micros int64 `json:"us"`
}
