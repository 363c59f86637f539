// Package edgetest holds hand-written stand-ins for what an edge talks to: workers
// that answer as they are told, a journal that can fail, and a feed of policy and
// control messages. It is imported from tests only.
package edgetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"usher.internal/schemas/proto/usherv1"
)

// ErrAway is what a stand-in answers that was told to be away.
var ErrAway = errors.New("away")

// Workers decide by Decide and take signs of life. The zero value allows everybody.
type Workers struct {
	// Decide answers questions; nil allows all of them. Set before use.
	Decide func(ctx context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error)
	// Seats answers signs of life; nil takes them all. Set before use.
	Seats func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error)

	mu    sync.Mutex // guards all below
	asked []*usherv1.AuthRequest
	signs []*usherv1.SeatSign
}

// Ask answers a question and remembers it.
func (w *Workers) Ask(ctx context.Context, _, _ string, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	w.mu.Lock()
	w.asked = append(w.asked, proto.CloneOf(m))
	w.mu.Unlock()
	if w.Decide == nil {
		return Allow(m), nil
	}
	return w.Decide(ctx, m)
}

// SendSeats takes signs and remembers them, if they were taken.
func (w *Workers) SendSeats(_ context.Context, _, _ string, m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	reply := &usherv1.SeatsReply{Ok: true}
	if w.Seats != nil {
		var err error
		if reply, err = w.Seats(m); err != nil || !reply.GetOk() {
			return reply, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signs = append(w.signs, proto.CloneOf(m).GetSigns()...)
	return reply, nil
}

// Asked are the questions so far.
func (w *Workers) Asked() []*usherv1.AuthRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked)
}

// Signs are the signs of life that were taken so far.
func (w *Workers) Signs() []*usherv1.SeatSign {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.signs)
}

// Allow lets the viewer of m in, with his running session or a new one, for three minutes.
func Allow(m *usherv1.AuthRequest) *usherv1.AuthReply {
	session := m.GetSessionId()
	if len(session) == 0 {
		id := uuid.New()
		session = id[:]
	}
	return &usherv1.AuthReply{
		Status: usherv1.AuthReply_STATUS_DECIDED, DecisionId: m.GetId(), Outcome: "allow", Reason: "granted",
		Realm: "main", User: "alice", SessionName: "alice", SessionId: session,
		LeaseMs: (3 * time.Minute).Milliseconds(), PolicyRevision: 1,
	}
}

// Deny refuses the viewer of m.
func Deny(m *usherv1.AuthRequest, reason string) *usherv1.AuthReply {
	return &usherv1.AuthReply{
		Status: usherv1.AuthReply_STATUS_DECIDED, DecisionId: m.GetId(), Outcome: "deny", Reason: reason,
		PolicyRevision: 1,
	}
}

// Status answers with a status that is no decision.
func Status(s usherv1.AuthReply_Status) *usherv1.AuthReply {
	return &usherv1.AuthReply{Status: s, WorkerUnixMs: time.Now().UnixMilli()}
}

// Journal remembers entries. The zero value is ready to use.
type Journal struct {
	mu      sync.Mutex // guards all below
	fault   error
	entries []*usherv1.JournalEntry
}

// Put stores an entry under its id, once.
func (j *Journal) Put(_ context.Context, _ string, e *usherv1.JournalEntry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fault != nil {
		return j.fault
	}
	same := func(o *usherv1.JournalEntry) bool { return o.GetId() == e.GetId() }
	if !slices.ContainsFunc(j.entries, same) {
		j.entries = append(j.entries, proto.CloneOf(e))
	}
	return nil
}

// Fail makes every Put return err, or work again with nil.
func (j *Journal) Fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = err
}

// Rows are the decisions reported so far.
func (j *Journal) Rows() []*usherv1.DecisionRow {
	j.mu.Lock()
	defer j.mu.Unlock()
	var rows []*usherv1.DecisionRow
	for _, e := range j.entries {
		if r := e.GetDecision(); r != nil {
			rows = append(rows, r)
		}
	}
	return rows
}

// Totals are what nodes said of sessions that are over, so far.
func (j *Journal) Totals() []*usherv1.SessionTotals {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []*usherv1.SessionTotals
	for _, e := range j.entries {
		if t := e.GetTotals(); t != nil {
			all = append(all, t)
		}
	}
	return all
}

// Repeats is the highest total reported for a row, 0 if none was.
func (j *Journal) Repeats(id uuid.UUID) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	var total int64
	for _, e := range j.entries {
		if r := e.GetRepeats(); r != nil && uuid.UUID(r.GetDecisionId()) == id {
			total = max(total, r.GetTotal())
		}
	}
	return total
}

// Feed spreads what the test gives it. Make it with NewFeed.
type Feed struct {
	policy  chan *usherv1.Projection
	control chan *usherv1.Control
	ticks   chan time.Time
}

// NewFeed makes a feed that has nothing yet.
func NewFeed() *Feed {
	return &Feed{
		policy: make(chan *usherv1.Projection), control: make(chan *usherv1.Control), ticks: make(chan time.Time),
	}
}

// Policy hands a projection to the edge that follows, and waits until it is taken.
func (f *Feed) Policy(p *usherv1.Projection) { f.policy <- p }

// Control hands over a control message, and waits until it is taken.
func (f *Feed) Control(m *usherv1.Control) { f.control <- m }

// Tick hands over a tick, and waits until it is taken.
func (f *Feed) Tick() { f.ticks <- time.Now() }

// WatchProjection gives what Policy hands over.
func (f *Feed) WatchProjection(ctx context.Context, _ string, take func(*usherv1.Projection)) error {
	for {
		select {
		case p := <-f.policy:
			take(p)
		case <-ctx.Done():
			return nil
		}
	}
}

// FollowControl gives what Control and Tick hand over.
func (f *Feed) FollowControl(ctx context.Context, take func(uint64, *usherv1.Control), onTick func(uint64, time.Time)) error {
	for seq := uint64(1); ; seq++ {
		select {
		case m := <-f.control:
			take(seq, m)
		case at := <-f.ticks:
			onTick(seq, at)
		case <-ctx.Done():
			return nil
		}
	}
}
