package decide

import (
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/policy"
)

// Verdict is what the policy and its checks say of a question. An allow still
// has to find a seat.
type Verdict struct {
	// Outcome is access.Allow, access.Deny, or access.Redirect where a middleware sends the
	// viewer elsewhere; a denial may have a Location of the rule.
	Outcome access.Outcome
	Reason  access.Reason
	// Stream is the stream's own name, after aliasing.
	Stream string
	// Text says why in words for an operator, without secrets.
	Text string
	// Location is where a denied viewer is sent: what the middleware said, else the
	// rule's on_deny; "" for nowhere.
	Location string
	// Realm and User name the account, Device the device; "" where no check named one.
	Realm, User, Device, SessionName string
	// Country of the viewer's address, "" if it is not known.
	Country string
	// Reach is how far into the archive an allowed viewer may go, nil for all of it.
	Reach *access.Reach
	// Rule and Node that judged, nil if none did.
	Rule *policy.Rule
	Node *policy.Node
	// Limit is the most live seats of Subject, -1 for no limit; Mode what happens
	// when they are taken, Cut how long a soft one may be exceeded.
	Limit int
	Mode  access.Mode
	Cut   time.Duration
	// More are limits besides that, Counted the keys besides Subject that the seat counts under.
	More    []Limit
	Counted []access.Key
	// Subject is whom seats are counted for: (realm, user), else token, else address.
	Subject access.Key
	// Lease is how long an edge may answer from memory, Seat how long the ledger
	// keeps the seat without a renewal: always longer. Both are 0 for a denial.
	Lease, Seat time.Duration
	Steps       []access.Step
	// Unavailable says that a check could not be asked and a fail mode decided. A
	// running session that goes on so keeps the user the ledger has, if User is "".
	Unavailable bool
	// Unknown marks a denial because a check could not be asked, under a fail mode that does
	// not want one for its own sake: a caller that keeps what it knew does right.
	Unknown bool

	// Shadow says that the policy, or at least its limit, is only tried out on this viewer: the
	// ledger must neither refuse him nor end anybody for him.
	Shadow bool
	// Would and WouldReason are what an enforced policy would have said; "" where it was
	// enforced, but for its limit.
	Would       access.Outcome
	WouldReason access.Reason
	// Told is the number of sessions that the caller is told in place of Limit, where Would is
	// set: that of the check that answers, 0 for none.
	Told int

	asked   string                   // the name that the viewer asked for
	targets map[access.Reason]string // on_deny of the rule that judged
	told    bool                     // Location is a middleware's
}

// Address is where a viewer is sent who is denied for this reason, by the row of this
// decision: Location where it is what a middleware said of this very denial, else the rule's
// on_deny; "" for nowhere.
func (v *Verdict) Address(reason access.Reason, decision uuid.UUID) string {
	targets := v.targets
	if targets == nil && v.Rule != nil {
		targets = v.Rule.OnDeny
	}
	to, ok := targets[reason]
	if !ok {
		to = targets["*"]
	}
	switch {
	case reason == v.Reason && (v.told || to == ""):
		return v.Location
	case to == "":
		return ""
	}
	return access.Address(to, v.asked, reason, decision)
}

// seatMargin is how much longer than its lease a seat lives at least.
const seatMargin = 30 * time.Second

// deny makes the verdict a denial. location is the middleware's own, "" if none.
func (v *Verdict) deny(reason access.Reason, text, location string) {
	if text == "" {
		text = reason.Text()
	}
	v.Outcome, v.Reason, v.Text, v.Location = access.Deny, reason, text, location
	v.told = location != ""
}

// allow makes the verdict an allow for whom w names.
func (j *judgement) allow(v *Verdict, req *access.Request, reason access.Reason, text string, w welcome) {
	if text == "" {
		text = reason.Text()
	}
	v.Outcome, v.Reason, v.Text = access.Allow, reason, text
	v.Realm, v.User, v.Device, v.SessionName = w.realm, w.user, w.device, w.name
	v.Unavailable = w.unavailable
	j.number, j.reach = w.sessions, w.reach
	v.Subject = j.subject(req, w)
	j.limits(v, req, w)
	v.Lease = j.lease(v, w)
	v.Seat = max(v.Lease+v.Lease/10, v.Node.Idle, v.Node.Hold) + seatMargin
	if v.Node.Rechecks {
		v.Seat += v.Node.Idle // its next sign of life comes when the lease is over
	}
}

// welcome is what the checks that said yes know of the viewer.
type welcome struct {
	realm, user, device, name string
	bearer                    string // counted by where there is no user
	sessions                  int
	reach                     *access.Reach
	duration                  time.Duration
	expires                   time.Time
	unlimited                 bool // an allow list let him in: no limit counts
	unavailable               bool
}

// subject is whom the viewer's seats are counted for.
func (e *Engine) subject(req *access.Request, w welcome) access.Key {
	switch {
	case w.user != "":
		return e.deps.Keyer.Key("user", w.realm, w.user)
	case w.bearer != "":
		// Before the token: where the proof stands elsewhere, the viewer could choose that at will.
		return e.deps.Keyer.Fingerprint(w.bearer)
	case req.Token != "":
		return e.deps.Keyer.Fingerprint(req.Token)
	default:
		return e.deps.Keyer.Key("ip", req.IP.String())
	}
}

// lease is the rule's, else the node's, clipped to how long the yes holds.
func (e *Engine) lease(v *Verdict, w welcome) time.Duration {
	d := v.Rule.Lease
	if d == 0 {
		d = v.Node.Lease
	}
	if w.duration > 0 {
		d = min(d, w.duration)
	}
	if !w.expires.IsZero() {
		d = min(d, w.expires.Sub(e.deps.Now()))
	}
	return max(d, 0)
}
