// Package admission holds the contract of the session ledger: one interface,
// its items and results, the group commit in front of it, and (in
// admissiontest) the model and the conformance suite that every ledger passes.
//
// A ledger is strict: over any number of workers, edges and concurrent opens
// no subject ever holds more live seats than its limit (DESIGN.md §3).
package admission

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// ErrUnavailable means that the ledger cannot be asked now: nothing is known
// about the items. Sending the same items again is always safe.
var ErrUnavailable = errors.New("session ledger is unavailable")

// ErrOverload means that too many items wait already: this one was not begun, and another
// worker may have room. It says nothing about the ledger.
var ErrOverload = errors.New("session ledger has too much to do here")

// ErrBadItem means that this one item can never be stored (text that is not
// UTF-8, a time outside the calendar). Its neighbours are not affected.
var ErrBadItem = errors.New("item cannot be stored")

// Ledger takes seats, gives them back and writes the audit row of each
// decision, in one transaction, before it returns.
type Ledger interface {
	// Apply acts as if its items were applied one after another; each result is
	// the item's state after all of them, so that an open whose seat a later
	// item of the same call took is answered as evicted. Results stand in the
	// order of the items. The error is ErrUnavailable (wrapped) or ctx's.
	Apply(ctx context.Context, items []Item) ([]Result, error)
}

// Item is one thing to do: exactly one of the fields is set.
type Item struct {
	Open  *Open  // a question that the checks accepted: take or renew a seat
	Audit *Audit // a question that was decided without the ledger: write its row
	Sign  *Sign  // a sign of life, or a close
}

// Record is what the audit row says besides the ledger's own part of the answer.
type Record struct {
	ID        uuid.UUID // UUIDv7; its time is the row's time and partition key
	Region    string
	Edge      string
	Node      string
	Caller    string
	Stream    string
	Realm     string
	User      string
	IP        netip.Addr // the zero Addr is stored as NULL
	UserAgent string
	Referer   string
	// Country of the viewer by ISO 3166, "" if unknown.
	Country  string
	Revision int64
	TraceID  [16]byte
	Duration time.Duration // spent on the question so far
	Steps    []access.Step
	// Would is what an enforced policy would have said, and why; "" where it was enforced.
	Would       access.Outcome
	WouldReason access.Reason
	// Rule is the policy's rule that said so, or whose limit is tried out; it is stored only
	// where there is a Would.
	Rule string
}

// Audit is a decision that takes no seat.
type Audit struct {
	Record
	Outcome access.Outcome
	Reason  access.Reason
	// Close is the running session that this decision ends (a re-decision that
	// came out as deny), uuid.Nil if none; closed as access.CloseDenied.
	Close uuid.UUID
}

// Open asks for a seat.
type Open struct {
	Record
	// Reason stands in the row when the ledger agrees (granted, allow_rule, grace).
	Reason access.Reason
	// Session is the id of the new session if one is opened. A re-decision
	// carries the running session's id in Running.
	Session uuid.UUID
	// Running is the session that this question re-decides; uuid.Nil for a new one.
	Running uuid.UUID
	// Replaces is closed first, as id_reused; uuid.Nil if none.
	Replaces uuid.UUID
	// Key is the session key: one live session per key.
	Key access.Key
	// Subject is whom the seats are counted for: (realm, user), else token, else address.
	Subject access.Key
	// Token is the token's fingerprint, the zero Key if the viewer brought none.
	Token access.Key
	// Device of the viewer; the same device on another stream is a zap.
	Device string
	// StillPlaying: a zapped session went on past the tolerance. It zaps
	// nothing, takes a seat of its own, and its device loses the courtesy for an hour.
	StillPlaying bool
	// Keep says that the checks could not be asked, so that nobody knows whose the running session
	// is: it goes on as whoever it was opened for, whatever Subject and Limit say.
	Keep bool
	// Limit is the most live seats of Subject; negative means no limit. Cut is that of a soft one.
	Limit int
	Mode  access.Mode
	Cut   time.Duration
	// More are limits besides that one. All are taken together: the seat is taken only if each
	// has room or makes some, and nobody is ended if one of them refuses.
	More []Limit
	// Counted are the keys, besides Subject, under which the seat counts from now on: those that
	// More names, and those that limits of other rules may name.
	Counted []access.Key
	// Shadow says that no limit is enforced: the open takes a seat beyond them, nobody is
	// ended for it, and the row tells what would have been. Seats that were taken so are
	// counted by opens in shadow alone.
	Shadow bool
	// Seat is how long the seat lives without a renewal; longer than Lease.
	Seat time.Duration
	// Lease bounds how long an edge may answer from memory: bars last that long.
	Lease time.Duration
}

// Limit is one of several limits of an open.
type Limit struct {
	// Name says whose seats it counts, for operators: "of this device in rule X".
	Name string
	// Subject is whom it counts: the open's own, or one of its Counted.
	Subject access.Key
	// Sessions is the most live seats, not negative.
	Sessions int
	Mode     access.Mode
	// Cut is how long a soft limit is exceeded at most: then the oldest beyond it are evicted. From a
	// third of it on, the oldest that show no life are closed. 0 is DefaultCut.
	Cut time.Duration
}

// DefaultCut is how long a soft limit is exceeded where nothing else is said.
const DefaultCut = 90 * time.Second

// SoftShare bounds a soft limit: with so many times its number of seats it refuses.
const SoftShare = 2

// All are the limits of the open, that of Subject first.
func (o *Open) All() []Limit {
	if o.Limit < 0 {
		return o.More
	}
	name := "of this user"
	switch {
	case o.User != "":
	case !o.Token.IsZero():
		name = "of this token"
	default:
		name = "of this address"
	}
	first := Limit{Name: name, Subject: o.Subject, Sessions: o.Limit, Mode: o.Mode, Cut: o.Cut}
	return append([]Limit{first}, o.More...)
}

// Listed says whether the limits are more than one that makes room at once or refuses.
func (o *Open) Listed() bool { return len(o.More) > 0 || o.Limit >= 0 && o.Mode == access.Soft }

// SoftCut is how long the limit may be exceeded.
func (l *Limit) SoftCut() time.Duration {
	if l.Cut > 0 {
		return l.Cut
	}
	return DefaultCut
}

// Sign is a sign of life of a session, or its end.
type Sign struct {
	Session uuid.UUID
	// Age is how long ago the sign was seen.
	Age time.Duration
	// Edge and Node that saw it: a session of another edge's node is not touched... by name.
	Edge string
	// Close gives the seat back, unless somebody renewed after this sign.
	Close  bool
	Reason access.CloseReason
	// Requests and Bytes are totals at this edge since the opening, never increments.
	Requests, Bytes int64
}

// Result is the state of an item after the call.
type Result struct {
	// Err is nil or wraps ErrBadItem.
	Err error
	// Decision is the id of the row that stands for this answer: the question's
	// own, or the opening row of the session that the answer repeats.
	Decision uuid.UUID
	Outcome  access.Outcome
	Reason   access.Reason
	Realm    string
	User     string
	// Session is the live session of an allowed open. For a Sign, it is the session.
	Session uuid.UUID
	// Live says whether the session of a Sign, or of an allowed Open, is live now.
	Live bool
	// Closed is why a Sign's session is not live, "" if it was never known.
	Closed access.CloseReason
	// Repeated says that no row was written, since an earlier one stands for it.
	Repeated bool
	// Would is what the row says of an enforced policy, as "outcome reason"; "" where it
	// was enforced, or where no row was written.
	Would string
	// Holders are the sessions that hold the seats when Reason is limit: those of the first limit of
	// the open's All that had no room, which is Full. Taken is how many seats its subject held, 0 where
	// that is told by Holders.
	Holders []Holder
	Full    int
	Taken   int
	// Ended are the sessions that this item ended (evicted, zapped, id_reused):
	// to be told to the edges at once. The outbox holds them too, until Published.
	Ended []Ended
}

// Holder is a session that holds a seat.
type Holder struct {
	Session  uuid.UUID `json:"session_id"`
	Stream   string    `json:"stream"`
	Node     string    `json:"node"`
	Device   string    `json:"device"`
	OpenedAt time.Time `json:"opened_at"`
}

// Ended is a session that was ended by force, as the control message says it.
type Ended struct {
	Outbox    int64 // the outbox row, to be deleted once published
	Session   uuid.UUID
	Key       access.Key
	Subject   access.Key
	Realm     string
	User      string
	Stream    string
	Device    string
	Node      string
	Reason    access.CloseReason
	Bar       time.Duration // 0: not barred
	BarDevice bool          // opens under (subject, stream, device) are barred too
	At        time.Time
	// By is the key of the session that a zapping device opened. Ledgers leave it to whoever asked.
	By access.Key
	// ByBelief says that whoever asked only believed that the device had left this stream.
	ByBelief bool
}

// Control is the message that tells the edges, the same from whomever it comes, so that
// a second publication is known as one.
func (e *Ended) Control() *usherv1.Control {
	var by []byte
	if !e.By.IsZero() {
		by = e.By[:]
	}
	return &usherv1.Control{
		Kind:       e.kind(),
		SessionId:  e.Session[:],
		SessionKey: e.Key[:],
		Subject:    e.Subject[:],
		Realm:      e.Realm,
		User:       e.User,
		Stream:     e.Stream,
		Device:     e.Device,
		Node:       e.Node,
		Reason:     string(e.Reason),
		BarMs:      e.Bar.Milliseconds(),
		BarDevice:  e.BarDevice,
		AtUnixMs:   e.At.UnixMilli(),
		ByKey:      by,
		ByBelief:   e.ByBelief,
	}
}

// kind is the subject's: what an edge does about it. Whatever is neither a kill nor a zap
// ends the session as an eviction does.
func (e *Ended) kind() string {
	switch e.Reason {
	case access.CloseKilled:
		return "kill"
	case access.CloseZapped:
		return "zap"
	default:
		return "evict"
	}
}
