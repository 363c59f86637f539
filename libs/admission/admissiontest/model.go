// Package admissiontest holds the model of a session ledger, which says in plain
// Go what the real one must do, and the conformance suite that every ledger passes.
package admissiontest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// Model is a ledger in memory: one lock, one item after another. It is the
// specification in code, and a fake for tests of what stands above a ledger.
type Model struct {
	mu       sync.Mutex
	seats    map[uuid.UUID]*seat
	order    int
	bars     map[string]bar
	rows     map[uuid.UUID]admission.Result
	closed   map[uuid.UUID]access.CloseReason
	down     bool
	now      func() time.Time
	outboxID int64
	soft     map[access.Key]*soft
}

type seat struct {
	admission.Open
	order    int
	openedAt time.Time
	lastSeen time.Time
	expires  time.Time
	beyond   bool // taken in shadow, and an enforced policy would have refused or ended it
}

type bar struct {
	until  time.Time
	reason access.Reason
	of     access.Key // the subject whose session it was, where it bars a session's key
}

var _ admission.Ledger = (*Model)(nil)

// NewModel makes an empty ledger by the real clock.
func NewModel() *Model {
	return &Model{
		seats: map[uuid.UUID]*seat{}, bars: map[string]bar{}, rows: map[uuid.UUID]admission.Result{},
		closed: map[uuid.UUID]access.CloseReason{}, soft: map[access.Key]*soft{}, now: time.Now,
	}
}

// SetDown makes every call fail with admission.ErrUnavailable, or work again.
func (m *Model) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

// Rows is how many audit rows have been written.
func (m *Model) Rows() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rows)
}

// Live are the sessions that hold a seat, in the order of their opening.
func (m *Model) Live() []uuid.UUID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []uuid.UUID
	for _, s := range m.sorted(func(*seat) bool { return true }) {
		ids = append(ids, s.Session)
	}
	return ids
}

// Expire makes a session's seat run out now.
func (m *Model) Expire(id uuid.UUID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.seats[id]; s != nil {
		s.expires = m.now().Add(-time.Millisecond)
	}
}

// Kill ends a session as an operator does.
func (m *Model) Kill(id uuid.UUID, bar time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.seats[id]; s != nil {
		s.Lease = max(s.Lease, bar)
		m.end(s, access.CloseKilled, "", nil)
	}
}

// Apply implements admission.Ledger.
func (m *Model) Apply(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, fmt.Errorf("the model was told to be down: %w", admission.ErrUnavailable)
	}
	// One call is one moment: bars that its items set end together.
	clock, now := m.now, m.now()
	m.now = func() time.Time { return now }
	defer func() { m.now = clock }()
	out := make([]admission.Result, len(items))
	bad := map[int]bool{}
	for i := range items {
		if err := refuse(&items[i]); err != nil {
			bad[i], out[i] = true, admission.Result{Err: err}
		}
	}
	for _, closes := range []bool{false, true} {
		for i, it := range items {
			if !bad[i] && it.Sign != nil && it.Sign.Close == closes {
				m.sign(it.Sign)
			}
		}
	}
	for i, it := range items {
		if !bad[i] && it.Audit != nil {
			out[i] = m.audit(it.Audit)
		}
	}
	m.settle(softKeys(items, bad))
	for i, it := range items {
		if !bad[i] && it.Open != nil {
			out[i] = m.open(it.Open)
		}
	}
	for i, it := range items {
		if !bad[i] {
			out[i] = m.after(it, out[i], out)
		}
	}
	return out, nil
}

// refuse is admission.Check and what a database refuses besides.
func refuse(it *admission.Item) error {
	if err := admission.Check(it); err != nil {
		return err
	}
	if it.Open != nil && strings.ContainsRune(it.Open.UserAgent+it.Open.Stream, 0) {
		return fmt.Errorf("%w: NUL in a text", admission.ErrBadItem)
	}
	return nil
}

func (m *Model) sign(s *admission.Sign) {
	st := m.seats[s.Session]
	if st == nil {
		return
	}
	seen := m.now().Add(-s.Age)
	if s.Close {
		if !st.lastSeen.After(seen.Add(500 * time.Millisecond)) {
			m.end(st, s.Reason, "", nil)
		}
		return
	}
	if e := seen.Add(st.Seat); e.After(st.expires) {
		st.expires = e
	}
	if seen.After(st.lastSeen) {
		st.lastSeen = seen
	}
}

func (m *Model) audit(a *admission.Audit) admission.Result {
	if r, ok := m.stored(a.ID); ok {
		return r
	}
	if st := m.seats[a.Close]; st != nil {
		m.end(st, access.CloseDenied, "", nil)
	}
	return m.write(admission.Result{Decision: a.ID, Outcome: a.Outcome, Reason: a.Reason, Realm: a.Realm, User: a.User,
		Would: would(a.Would, a.WouldReason)})
}

func (m *Model) open(o *admission.Open) admission.Result {
	now := m.now()
	if r, ok := m.stored(o.ID); ok {
		// A session asked for again under its own id is renewed like any other; all else stays as it is.
		st := m.seats[r.Session]
		if st == nil || !st.expires.After(now) || st.Key != o.Key || o.Replaces == r.Session || !o.Shadow && m.rule(o, st, nil).why != "" {
			return r
		}
	}
	if o.StillPlaying {
		// The device has shown that it plays two streams at once.
		defer func() { m.bars[courtesy(o.Subject, o.Device)] = bar{until: now.Add(time.Hour), reason: "courtesy"} }()
	}
	r := admission.Result{Decision: o.ID, Outcome: access.Allow, Reason: o.Reason, Realm: o.Realm, User: o.User, Session: o.Session,
		Would: asked(o)}
	before := m.levels(o)
	if st := m.seats[o.Replaces]; st != nil {
		m.end(st, endedOr(st, now, access.CloseIDReused), "", &r)
	}
	for _, st := range m.sorted(func(s *seat) bool { return s.counted(o) && !s.expires.After(now) }) {
		m.end(st, access.CloseExpired, "", &r)
	}
	var same *seat
	for _, st := range m.sorted(func(s *seat) bool { return s.Key == o.Key }) {
		if st.expires.After(now) && (st.Subject == o.Subject || o.Keep) && st.Stream == o.Stream && st.Device == o.Device &&
			(o.Token.IsZero() || o.Token == st.Token) {
			same = st
			continue
		}
		m.end(st, endedOr(st, now, access.CloseIDReused), "", &r)
	}
	if same != nil {
		return m.again(o, same, r, before)
	}
	return m.fresh(o, r, before)
}

func endedOr(st *seat, now time.Time, why access.CloseReason) access.CloseReason {
	if !st.expires.After(now) {
		return access.CloseExpired
	}
	return why
}

// again re-decides a live session: bans and limits are judged anew, no row of its own.
func (m *Model) again(o *admission.Open, same *seat, r admission.Result, before levels) admission.Result {
	says := m.rule(o, same, nil)
	why := says.why
	if o.Shadow {
		if why != "" && accepted(o) {
			r.Would = would(access.Deny, why)
		}
		why = "" // its seat is beyond every limit
	}
	switch why {
	case access.Limit:
		m.end(same, access.CloseDenied, "", &r)
		r.Outcome, r.Reason, r.Session = access.Deny, why, uuid.Nil
		says.tell(&r)
		return m.write(r)
	case access.Evicted:
		m.end(same, access.CloseEvicted, o.Device, &r)
		r.Outcome, r.Reason, r.Session = access.Deny, why, uuid.Nil
		return m.write(r)
	}
	m.makeRoom(o, says.out, &r)
	now := m.now()
	same.lastSeen, same.Seat, same.Shadow = now, o.Seat, o.Shadow
	same.beyond = o.Shadow && (says.why != "" || !accepted(o))
	if !o.Keep {
		same.Counted = o.Counted
		m.exceed(o, before)
	}
	same.Lease = max(same.Lease, o.Lease)
	if e := now.Add(o.Seat); e.After(same.expires) {
		same.expires = e
	}
	r.Session, r.Decision, r.Repeated, r.Live = same.Session, same.ID, true, true
	return r
}

func (m *Model) fresh(o *admission.Open, r admission.Result, before levels) admission.Result {
	now := m.now()
	lost := m.bars[courtesy(o.Subject, o.Device)].until.After(now)
	zaps := m.sorted(func(s *seat) bool {
		return s.Subject == o.Subject && s.Device == o.Device && s.Stream != o.Stream && !o.StillPlaying && !lost && s.Shadow == o.Shadow
	})
	why, barred := m.barred(o)
	var says ruling
	if !barred || o.StillPlaying {
		says = m.rule(o, nil, zaps)
		why = says.why
	}
	switch {
	case why == "":
	case o.Shadow && (why == access.Limit || why == access.Evicted):
		if accepted(o) {
			r.Would = would(access.Deny, why)
		}
	default:
		r.Outcome, r.Reason, r.Session = access.Deny, why, uuid.Nil
		says.tell(&r)
		return m.write(r)
	}
	for _, st := range zaps {
		m.end(st, access.CloseZapped, o.Device, &r)
	}
	m.makeRoom(o, says.out, &r)
	m.order++
	m.seats[o.Session] = &seat{Open: *o, order: m.order, openedAt: now, lastSeen: now, expires: now.Add(o.Seat),
		beyond: o.Shadow && (why != "" || !accepted(o))}
	m.exceed(o, before)
	r.Live = true
	return m.write(r)
}

// makeRoom ends sessions for an open, or only says so in shadow.
func (m *Model) makeRoom(o *admission.Open, out []*seat, r *admission.Result) {
	for _, st := range out {
		if o.Shadow {
			st.beyond = st.Shadow // from now on it does not count
			continue
		}
		m.end(st, access.CloseEvicted, o.Device, r)
	}
	if len(out) > 0 && o.Shadow && accepted(o) {
		r.Would = would(access.Allow, access.Reason(access.EvictOldest))
	}
}

// asked is what the row says of an open that no limit stands against.
func asked(o *admission.Open) string {
	if o.Shadow && o.Would == "" {
		return string(access.Allow)
	}
	return would(o.Would, o.WouldReason)
}

// accepted says whether the policy itself would have let in, but for its limit.
func accepted(o *admission.Open) bool { return o.Would == "" || o.Would == access.Allow }

func would(o access.Outcome, why access.Reason) string {
	return strings.TrimSpace(string(o) + " " + string(why))
}

// holders names up to ten seats, oldest first.
func holders(seats []*seat) []admission.Holder {
	var h []admission.Holder
	for _, st := range seats[:min(len(seats), 10)] {
		h = append(h, admission.Holder{Session: st.Session, Stream: st.Stream, Node: st.Node, Device: st.Device, OpenedAt: st.openedAt})
	}
	return h
}

// after turns an item's answer into its state after the whole call.
func (m *Model) after(it admission.Item, r admission.Result, all []admission.Result) admission.Result {
	if it.Sign != nil {
		_, live := m.seats[it.Sign.Session]
		return admission.Result{Session: it.Sign.Session, Live: live, Closed: m.closed[it.Sign.Session]}
	}
	_, r.Live = m.seats[r.Session]
	switch {
	case r.Outcome != access.Allow, r.Session == uuid.Nil:
		r.Live = false
		return r
	case r.Live, r.Repeated && it.Open == nil, m.closed[r.Session] == access.CloseZapped, len(all) == 1:
		if r.Repeated {
			r.Would = "" // no row of its own
		}
		return r
	}
	r.Outcome, r.Reason = access.Deny, access.Evicted
	if it.Open != nil {
		r.Decision = it.Open.ID
		m.rows[r.Decision] = r
	}
	return r
}

func (m *Model) stored(id uuid.UUID) (admission.Result, bool) {
	r, ok := m.rows[id]
	if ok {
		r.Repeated, r.Ended, r.Holders, r.Full, r.Taken, r.Would = true, nil, nil, 0, 0, ""
		_, r.Live = m.seats[r.Session]
	}
	return r, ok
}

func (m *Model) write(r admission.Result) admission.Result {
	m.rows[r.Decision] = r
	return r
}

func (m *Model) barred(o *admission.Open) (access.Reason, bool) {
	last := bar{until: m.now()}
	for _, k := range []string{o.Key.String(), onStream(o.Subject, o.Stream, o.Device)} {
		b := m.bars[k]
		if k == o.Key.String() && b.of != o.Subject && !o.Keep {
			continue // a caller whose ids start again gave it to somebody else
		}
		if b.until.After(last.until) {
			last = b
		}
	}
	return last.reason, last.reason != ""
}
