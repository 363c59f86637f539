package edge

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// window is how long one row stands for all refusals of one kind.
	window = time.Minute
	// maxRefusals bounds what attackers with many addresses or names may take up; the
	// rest shares a row for each reason.
	maxRefusals = 8192
	// maxTallies bounds the rows whose repeats are counted at the same time.
	maxTallies = 65536
	// tallyLife is how long a row's total is kept after it last rose: longer than window.
	tallyLife = 2 * window
)

// refusals are what the edge refuses alone: one row an address, node and reason a minute.
type refusals struct {
	mu   sync.Mutex // guards rows
	rows map[refusal]standing
}

type refusal struct {
	addr   netip.Addr // zero in the bucket that takes what finds no room
	node   string
	reason access.Reason
}

type standing struct {
	id    uuid.UUID
	until instant
}

func newRefusals() *refusals { return &refusals{rows: make(map[refusal]standing)} }

// note finds the row that stands for a refusal now. fresh means that there was none:
// the caller writes it under the id.
func (r *refusals) note(k refusal, now instant, newID func() uuid.UUID) (id uuid.UUID, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.rows[k]
	if !ok && len(r.rows) >= maxRefusals {
		k = refusal{reason: k.reason}
		s = r.rows[k]
	}
	if now < s.until {
		return s.id, false
	}
	s = standing{newID(), now.add(window)}
	r.rows[k] = s
	return s.id, true
}

// sweep forgets rows whose minute is over.
func (r *refusals) sweep(now instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.rows {
		if now >= s.until {
			delete(r.rows, k)
		}
	}
}

// tallies count the answers that repeat a row, as totals: a lost or doubled report
// changes nothing.
type tallies struct {
	mu   sync.Mutex // guards all below
	rows map[uuid.UUID]*tally
	lost int64 // repeats that found no room
}

type tally struct {
	total, reported int64
	touched         instant
}

func newTallies() *tallies { return &tallies{rows: make(map[uuid.UUID]*tally)} }

// add counts one more answer that repeats the row.
func (t *tallies) add(row uuid.UUID, now instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.rows[row]
	if y == nil {
		if len(t.rows) >= maxTallies {
			t.lost++
			return
		}
		y = &tally{}
		t.rows[row] = y
	}
	y.total++
	y.touched = now
}

// missed is how many repeats found no room.
func (t *tallies) missed() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// flush gives the totals that have risen to report, and forgets rows that rest. A
// total that could not be reported is given again the next time.
func (t *tallies) flush(now instant, report func(*usherv1.JournalEntry) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, y := range t.rows {
		if y.total > y.reported && report(repeats(id, y.total)) {
			y.reported = y.total
		}
		if y.total == y.reported && now.since(y.touched) > tallyLife {
			delete(t.rows, id)
		}
	}
}

// repeats reports a total. Its message id says which total it is, so that redelivery
// changes nothing and a higher one still comes through.
func repeats(id uuid.UUID, total int64) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{
		Id: id.String() + ":" + strconv.FormatInt(total, 10),
		What: &usherv1.JournalEntry_Repeats{Repeats: &usherv1.Repeats{
			DecisionId: id[:], Total: total,
		}},
	}
}

// row reports a decision that the edge made by itself: it stands.
func (s *Service) row(q *question, d *access.Decision, list ...access.Step) *usherv1.JournalEntry {
	r := &usherv1.DecisionRow{
		Id: d.ID[:], Region: s.cfg.Region, Edge: s.cfg.Name,
		Node: q.Node, Caller: q.Caller, Stream: q.own, Realm: d.Realm, User: d.User,
		UserAgent: q.UserAgent, Outcome: string(d.Outcome), Reason: string(d.Reason),
		PolicyRevision: d.Revision, DurationUs: time.Since(q.asked).Microseconds(),
		Steps: steps(list...),
	}
	if q.IP.IsValid() {
		r.Ip = q.IP.String()
	}
	if d.Session != uuid.Nil {
		r.SessionId = d.Session[:]
	}
	if q.trace != ([16]byte{}) {
		r.TraceId = q.trace[:]
	}
	return &usherv1.JournalEntry{
		Id: d.ID.String(), What: &usherv1.JournalEntry_Decision{Decision: r},
	}
}

func steps(list ...access.Step) string {
	text, err := json.Marshal(list)
	if err != nil { // strings and a number: cannot be
		return "[]"
	}
	return string(text)
}
