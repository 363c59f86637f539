package recorder

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

// fakeStore is a Store in memory that can be told to fail.
type fakeStore struct {
	mu       sync.Mutex
	fail     error
	position uint64
	batches  []pgstore.Batch
	outbox   []admission.Ended
	policy   *pgstore.PolicyRow
	reads    int // of the whole policy
	swept    []pgstore.Swept
	sweeps   int
	kept     []policy.Retention
	orders   []pgstore.DirectiveRow
	told     map[uuid.UUID]bool
	adopted  []pgstore.DirectiveRow
	enforced int
	counted  int
	peaks    int
	history  []string // partitions, the oldest first
}

var _ Store = (*fakeStore)(nil)

func (s *fakeStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *fakeStore) Position(context.Context, string, time.Time) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.fail
}

func (s *fakeStore) Record(_ context.Context, b pgstore.Batch) (pgstore.Recorded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return pgstore.Recorded{}, s.fail
	}
	if s.position != b.After {
		return pgstore.Recorded{}, pgstore.ErrPositionMoved
	}
	s.position = b.Last
	s.batches = append(s.batches, b)
	return pgstore.Recorded{New: len(b.Decisions) + len(b.Uncounted)}, nil
}

func (s *fakeStore) Outbox(_ context.Context, olderThan time.Duration, limit int) ([]admission.Ended, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var old []admission.Ended
	for _, e := range s.outbox {
		if time.Since(e.At) >= olderThan && len(old) < limit {
			old = append(old, e)
		}
	}
	return old, s.fail
}

func (s *fakeStore) Published(_ context.Context, rows []int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outbox = slices.DeleteFunc(s.outbox, func(e admission.Ended) bool { return slices.Contains(rows, e.Outbox) })
	return s.fail
}

func (s *fakeStore) CurrentRevision(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policy == nil {
		return 0, s.fail
	}
	return s.policy.Revision, s.fail
}

func (s *fakeStore) GoBack(context.Context) (pgstore.Trial, bool, error) {
	return pgstore.Trial{}, false, nil
}

func (s *fakeStore) CurrentPolicy(context.Context) (*pgstore.PolicyRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.policy, s.fail
}

func (s *fakeStore) setPolicy(revision int64, source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = &pgstore.PolicyRow{Revision: revision, Source: source, Author: "me", CreatedAt: time.Now()}
}

func (s *fakeStore) Sweep(context.Context) (pgstore.Swept, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeps++
	if len(s.swept) == 0 {
		return pgstore.Swept{}, s.fail
	}
	w := s.swept[0]
	s.swept = s.swept[1:]
	return w, s.fail
}

func (s *fakeStore) Maintain(_ context.Context, keep policy.Retention) (pgstore.Maintained, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, keep)
	return pgstore.Maintained{Created: 1}, s.fail
}

func (s *fakeStore) RollUsage(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted++
	return 1, s.fail
}

func (s *fakeStore) RollPeaks(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peaks++
	return 1, s.fail
}

func (s *fakeStore) DropOldest(context.Context, string) (pgstore.EarlyDrop, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil || len(s.history) == 0 {
		return pgstore.EarlyDrop{}, false, s.fail
	}
	d := pgstore.EarlyDrop{Table: s.history[0], Bytes: 1 << 20}
	s.history = s.history[1:]
	return d, true, nil
}

func (s *fakeStore) Untold(_ context.Context, limit int) ([]pgstore.DirectiveRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []pgstore.DirectiveRow
	for _, r := range s.orders {
		if !s.told[r.ID] && len(rows) < limit {
			rows = append(rows, r)
		}
	}
	return rows, s.fail
}

func (s *fakeStore) Told(_ context.Context, rows []pgstore.DirectiveRow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told == nil {
		s.told = map[uuid.UUID]bool{}
	}
	for _, r := range rows {
		s.told[r.ID] = true
	}
	return s.fail
}

func (s *fakeStore) Restated(context.Context, time.Duration) ([]pgstore.DirectiveRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.orders), s.fail
}

func (s *fakeStore) Adopt(_ context.Context, rows []pgstore.DirectiveRow) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopted = append(s.adopted, rows...)
	return len(rows), s.fail
}

func (s *fakeStore) Enforce(context.Context, time.Duration) ([]admission.Ended, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enforced++
	return nil, s.fail
}

// fakeStream is the control stream's directives, in memory.
type fakeStream struct {
	made      time.Time
	held      map[uuid.UUID]bus.Held
	published int
	fail      error
}

func (f *fakeStream) PublishDirective(_ context.Context, m *usherv1.Control) error {
	if f.fail != nil {
		return f.fail
	}
	id := uuid.UUID(m.GetDirective().GetId())
	if f.held[id].Control.GetDirective().GetRevoked() && !m.GetDirective().GetRevoked() {
		return bus.ErrRevoked
	}
	if f.held == nil {
		f.held = map[uuid.UUID]bus.Held{}
	}
	f.held[id] = bus.Held{Control: m, At: time.Now()}
	f.published++
	return nil
}

func (f *fakeStream) RestateDirective(ctx context.Context, m *usherv1.Control, _ bus.Held) error {
	return f.PublishDirective(ctx, m)
}

func (f *fakeStream) ControlIncarnation(context.Context) (time.Time, error) { return f.made, f.fail }

func (f *fakeStream) ReadDirectives(_ context.Context, kind string, give func(bus.Held)) error {
	for _, h := range f.held {
		if h.Control.GetKind() == kind {
			give(h)
		}
	}
	return f.fail
}

// fakeBus is a broadcaster and a policyTarget.
type fakeBus struct {
	mu       sync.Mutex
	sent     []*usherv1.Control
	policies []*usherv1.PolicyRevision
	keys     []string // of the last projections
	fail     error
	failFrom int // messages that go out before fail counts
}

func (b *fakeBus) PublishControl(_ context.Context, m *usherv1.Control) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil && len(b.sent) >= b.failFrom {
		return 0, b.fail
	}
	b.sent = append(b.sent, m)
	return uint64(len(b.sent)), nil
}

func (b *fakeBus) PutPolicy(_ context.Context, p *usherv1.PolicyRevision, projections map[string]*usherv1.Projection) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policies, b.keys = append(b.policies, p), nil
	for k := range projections {
		b.keys = append(b.keys, k)
	}
	slices.Sort(b.keys)
	return b.fail
}

const testPolicy = `
version: 1
nodes:
  n1: {caller: nginx, from: [127.0.0.1]}
  n2: {caller: nginx, from: [127.0.0.1], edge: e2}
streams:
  - {match: "**", auth: allow}
retention: {steps: 1d, decisions: 2d, sessions: 4d}
`

func parse(t *testing.T) *policy.Snapshot {
	t.Helper()
	s, err := policy.Parse("test.yaml", []byte(testPolicy), decide.Kinds())
	if err != nil {
		t.Fatalf("policy: %v", err)
	}
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// row is what an edge reports of a question about node n1.
func row(change ...func(*usherv1.DecisionRow)) *usherv1.DecisionRow {
	id := uuid.Must(uuid.NewV7())
	r := &usherv1.DecisionRow{
		Id: id[:], Region: "eu", Edge: "e1", Node: "n1", Caller: "nginx", Stream: "news", Ip: "198.51.100.7",
		Outcome: "allow", Reason: "grace", Steps: `[{"n":"fail mode","r":"grace","us":12}]`,
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func decision(r *usherv1.DecisionRow) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{Id: uuid.NewString(), What: &usherv1.JournalEntry_Decision{Decision: r}}
}

func uncounted(r *usherv1.DecisionRow) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{Id: uuid.NewString(), What: &usherv1.JournalEntry_Uncounted{Uncounted: r}}
}

func repeats(id []byte, total int64) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{Id: uuid.NewString(), What: &usherv1.JournalEntry_Repeats{
		Repeats: &usherv1.Repeats{DecisionId: id, Total: total}}}
}
