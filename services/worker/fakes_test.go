package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace/noop"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

// fakeEngine answers what verdict says.
type fakeEngine struct {
	verdict func(ctx context.Context, r *access.Request) decide.Verdict
	closed  chan struct{}
}

func (*fakeEngine) Playlist(context.Context, string, string, netip.Addr) (decide.Playlist, error) {
	return decide.Playlist{Reason: access.NoRule}, nil
}

func (e *fakeEngine) Decide(ctx context.Context, r *access.Request) decide.Verdict {
	return e.verdict(ctx, r)
}
func (e *fakeEngine) Close() { close(e.closed) }

func newFakeEngine(f func(context.Context, *access.Request) decide.Verdict) *fakeEngine {
	return &fakeEngine{verdict: f, closed: make(chan struct{})}
}

// direct is a committer over a ledger, without the group.
type direct struct {
	admission.Ledger
	mu    sync.Mutex
	items []admission.Item
	// before is called first, nil for nothing.
	before func(ctx context.Context) error
}

func (d *direct) Answered(time.Duration) bool { return false }

func (d *direct) Do(ctx context.Context, item admission.Item) (admission.Result, error) {
	d.mu.Lock()
	d.items = append(d.items, item)
	before := d.before
	d.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return admission.Result{}, err
		}
	}
	results, err := d.Apply(ctx, []admission.Item{item})
	if err != nil {
		return admission.Result{}, err
	}
	return results[0], results[0].Err
}

func (d *direct) DoAll(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	d.mu.Lock()
	d.items = append(d.items, items...)
	d.mu.Unlock()
	return d.Apply(ctx, items)
}

func (d *direct) last() admission.Item {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.items[len(d.items)-1]
}

// fakeJournal keeps entries, or fails.
type fakeJournal struct {
	mu      sync.Mutex
	entries []*usherv1.JournalEntry
	edges   []string
	fail    bool
}

func (j *fakeJournal) put(_ context.Context, edge, kind string, e *usherv1.JournalEntry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail {
		return errors.New("no journal")
	}
	if kind != kindUncounted {
		return errors.New("kind " + kind)
	}
	j.edges, j.entries = append(j.edges, edge), append(j.entries, e)
	return nil
}

// told collects what the edges are told.
type told struct {
	mu    sync.Mutex
	ended []admission.Ended
}

func (t *told) tell(e []admission.Ended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = append(t.ended, e...)
}

const testPolicy = `
version: 1
nodes:
  n1: {caller: nginx, from: [127.0.0.1]}
  foreign: {caller: nginx, from: [127.0.0.1], edge: e2}
streams:
  - match: "open/**"
    auth: allow
    limit: {sessions: 2, by: user, mode: refuse}
    on_deny: {limit: "https://tv.example/too-many", "*": "https://tv.example/no"}
  - match: "strict/**"
    auth: allow
    uncounted: deny
    limit: {sessions: 1, by: user, mode: refuse}
`

func parse(t *testing.T, text string) *policy.Snapshot {
	t.Helper()
	s, err := policy.Parse("test.yaml", []byte(text), decide.Kinds())
	if err != nil {
		t.Fatalf("test policy: %v", err)
	}
	s.Revision = 7
	return s
}

// bench is an answerer over fakes.
type bench struct {
	*answerer
	model   *admissiontest.Model
	ledger  *direct
	journal *fakeJournal
	told    *told
	engine  *fakeEngine
}

// setup decides by f; nil takes the real engine over testPolicy.
func setup(t *testing.T, f func(context.Context, *access.Request) decide.Verdict) *bench {
	t.Helper()
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	snapshot := parse(t, testPolicy)
	b := &bench{model: admissiontest.NewModel(), journal: &fakeJournal{}, told: &told{}}
	b.ledger = &direct{Ledger: b.model}
	if f == nil {
		built, err := decide.New(snapshot, decide.Deps{Keyer: keyer})
		if err != nil {
			t.Fatalf("engine: %v", err)
		}
		f = built.Decide
	}
	b.engine = newFakeEngine(f)
	log := slog.New(slog.DiscardHandler)
	m := newMetrics("w1", nil)
	p := newPolicies(nil, func(*usherv1.PolicyRevision) (*policy.Snapshot, engine, error) { return snapshot, b.engine, nil }, log, m)
	p.apply(t.Context(), &usherv1.PolicyRevision{Revision: 7})
	b.answerer = &answerer{
		region: "eu", policies: p, ledger: b.ledger, journal: b.journal, teller: b.told, keyer: keyer,
		tracer: noop.NewTracerProvider().Tracer(""), log: log, metrics: m, now: time.Now,
	}
	return b
}

// ask is a good question about open/news.
func ask(change ...func(*usherv1.AuthRequest)) *usherv1.AuthRequest {
	id := uuid.Must(uuid.NewV7())
	key := uuid.New()
	m := &usherv1.AuthRequest{
		Id: id[:], Region: "eu", Edge: "e1", Node: "n1", Caller: "nginx", SessionKey: key[:],
		Stream: "open/news", Token: "secret-token", Query: "token=secret-token", Ip: "198.51.100.7",
		UserAgent: "player", Device: "d-" + key.String(), ReceivedUnixUs: time.Now().UnixMicro(),
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func idOf(t *testing.T, raw []byte) uuid.UUID {
	t.Helper()
	id, err := uuid.FromBytes(raw)
	if err != nil {
		t.Fatalf("id of %d bytes", len(raw))
	}
	return id
}
