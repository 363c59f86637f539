package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"usher.internal/libs/access"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/natsd"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
)

// cluster is real NATS with a policy in force, and workers over one ledger in memory.
type cluster struct {
	server *natsd.Server
	model  *admissiontest.Model
	outbox *air
	spans  *tracetest.InMemoryExporter
	tel    *telemetry.Telemetry
	edge   *bus.Conn
	keyer  *access.Keyer
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{server: testkit.NATS(t), model: admissiontest.NewModel(), outbox: new(air), spans: tracetest.NewInMemoryExporter()}
	c.tel = telemetry.StartWith(sdktrace.NewTracerProvider(sdktrace.WithSyncer(c.spans)))
	c.edge = c.connect(t, "e1")
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	c.keyer = keyer
	ctx := within(t, 20*time.Second)
	if err := c.edge.EnsureStreams(ctx, "eu", 1); err != nil {
		t.Fatalf("streams: %v", err)
	}
	c.putPolicy(t, 1, testPolicy)
	return c
}

func (c *cluster) connect(t *testing.T, name string) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(bus.Config{
		Name: name, Region: "eu", InProcess: c.server.InProcess(), Tracer: c.tel.Tracer("bus"),
	}, c.tel.Log)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (c *cluster) putPolicy(t *testing.T, revision int64, text string) {
	t.Helper()
	s, err := policy.Parse("test.yaml", []byte(text), decide.Kinds())
	if err != nil {
		t.Fatalf("policy: %v", err)
	}
	s.Revision = revision
	p := &usherv1.PolicyRevision{Revision: revision, Source: text}
	if err := c.edge.PutPolicy(within(t, 10*time.Second), p, s.Projections()); err != nil {
		t.Fatalf("putting the policy: %v", err)
	}
}

// start runs a worker; stop ends it and waits.
func (c *cluster) start(t *testing.T, name string) (s *Service, stop func()) {
	t.Helper()
	s, err := New(Config{Name: name, Region: "eu", Pool: 8, Queue: 64, Admin: "127.0.0.1:0"}, Deps{
		Bus: c.connect(t, name), Ledger: c.model, Outbox: c.outbox, Keyer: c.keyer, Telemetry: c.tel,
	})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// answer asks until a worker answers: the group forms a moment after the start.
func (c *cluster) answer(t *testing.T, m *usherv1.AuthRequest) *usherv1.AuthReply {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		r, err := c.edge.Ask(one, "eu", "e1", m)
		cancel()
		if err == nil {
			return r
		}
		if ctx.Err() != nil {
			t.Fatalf("no worker answered: %v", err)
		}
	}
}

func TestWorkerAnswersOverNATS(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s, _ := c.start(t, "w1")
	m := ask()
	r := c.answer(t, m)
	if r.GetOutcome() != "allow" || r.GetPolicyRevision() != 1 || len(c.model.Live()) != 1 {
		t.Fatalf("answer = %v", r)
	}
	if failing := s.health.Ready(); len(failing) != 0 {
		t.Errorf("not ready: %v", failing)
	}
	reply, err := c.edge.SendSeats(within(t, 10*time.Second), "eu", "e1", &usherv1.SeatsRequest{
		Signs: []*usherv1.SeatSign{{SessionId: r.GetSessionId(), Node: "n1", Close: true, Reason: "idle"}}})
	if err != nil || !reply.GetOk() || len(c.model.Live()) != 0 {
		t.Errorf("closing: %v, %v; live %v", reply, err, c.model.Live())
	}
}

func TestWorkerFollowsThePolicy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(t, "w1")
	if r := c.answer(t, ask()); r.GetOutcome() != "allow" {
		t.Fatalf("answer = %v", r)
	}
	c.putPolicy(t, 2, "version: 1\nnodes:\n  n1: {caller: nginx, from: [127.0.0.1]}\nstreams:\n  - {match: \"**\", auth: deny}\n")
	deadline := time.Now().Add(10 * time.Second)
	for {
		r := c.answer(t, ask())
		if r.GetPolicyRevision() == 2 {
			if r.GetOutcome() != "deny" || r.GetReason() != "deny_rule" {
				t.Errorf("answer = %v", r)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new revision never came into force")
		}
	}
}

func TestWorkerJournalsWhileTheLedgerIsAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(t, "w1")
	c.answer(t, ask())
	c.model.SetDown(true)
	m := ask()
	r := c.answer(t, m)
	if r.GetReason() != "uncounted" || !r.GetUnaccounted() {
		t.Fatalf("answer = %v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []bus.Entry
	_ = c.edge.ReadJournal(ctx, "eu", func(time.Time) (uint64, error) { return 0, nil }, 10, 10*time.Millisecond,
		func(_ context.Context, b bus.JournalBatch) error {
			got = append(got, b.Entries...)
			cancel()
			return nil
		})
	if len(got) != 1 || got[0].Edge != "e1" || got[0].Kind != "uncounted" || string(got[0].Entry.GetUncounted().GetId()) != string(m.GetId()) {
		t.Errorf("journal holds %v", got)
	}
}

func TestWorkerTellsEvictionsAndTicks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.putPolicy(t, 2, "version: 1\nnodes:\n  n1: {caller: nginx, from: [127.0.0.1]}\nstreams:\n"+
		"  - match: \"**\"\n    auth: allow\n    limit: {sessions: 1, by: user, mode: evict_oldest}\n")
	c.start(t, "w1")
	first := c.answer(t, ask())
	c.answer(t, ask())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	evicted, ticked := false, false
	both := func() {
		if evicted && ticked {
			cancel()
		}
	}
	err := c.edge.FollowControl(ctx, func(_ uint64, m *usherv1.Control) {
		mu.Lock()
		defer mu.Unlock()
		if m.GetKind() == "evict" && string(m.GetSessionId()) == string(first.GetSessionId()) {
			evicted = true
		}
		both()
	}, func(last uint64, _ time.Time) {
		mu.Lock()
		defer mu.Unlock()
		ticked = ticked || last == 1
		both()
	})
	if err != nil && !errors.Is(err, context.Canceled) || !evicted || !ticked {
		t.Errorf("evicted %t, ticked %t: %v", evicted, ticked, err)
	}
}

// No question is lost when a worker is told to stop: what it has taken it answers.
func TestWorkerStopsGracefully(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(t, "stays")
	c.answer(t, ask())
	leaves, stop := c.start(t, "leaves")
	<-leaves.policies.ready
	var askers sync.WaitGroup
	var mu sync.Mutex
	lost := map[string]int{}
	some := make(chan struct{}, 200)
	for range 4 {
		askers.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				r, err := c.edge.Ask(ctx, "eu", "e1", ask())
				cancel()
				if err != nil || r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED {
					mu.Lock()
					lost[fmt.Sprint(r.GetStatus(), err)]++
					mu.Unlock()
				}
				some <- struct{}{}
			}
		})
	}
	for range 40 {
		<-some
	}
	stop()
	askers.Wait()
	if len(lost) > 0 {
		t.Errorf("questions without a decision: %v", lost)
	}
}

func TestWorkerMakesOneTrace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, stop := c.start(t, "w1")
	ctx, root := c.tel.Tracer("test").Start(t.Context(), "root")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		r, err := c.edge.Ask(ctx, "eu", "e1", ask())
		if err == nil && r.GetOutcome() == "allow" {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no answer: %v", err)
		}
	}
	root.End()
	stop()
	parents := map[string]string{}
	ids := map[string]string{}
	for _, s := range c.spans.GetSpans() {
		if s.SpanContext.TraceID() == root.SpanContext().TraceID() {
			ids[s.SpanContext.SpanID().String()] = s.Name
		}
	}
	for _, s := range c.spans.GetSpans() {
		if s.SpanContext.TraceID() == root.SpanContext().TraceID() {
			parents[s.Name] = ids[s.Parent.SpanID().String()]
		}
	}
	for span, parent := range map[string]string{
		telemetry.SpanProcessAuth: telemetry.SpanRequestAuth, "decide": telemetry.SpanProcessAuth, telemetry.SpanLedgerCommit: telemetry.SpanProcessAuth,
	} {
		if parents[span] != parent {
			t.Errorf("span %q is under %q, want %q", span, parents[span], parent)
		}
	}
}

func TestNewRefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	good := Deps{Bus: c.edge, Ledger: c.model, Outbox: c.outbox, Keyer: c.keyer, Telemetry: c.tel}
	if _, err := New(Config{Name: "w.1", Region: "eu"}, good); err == nil {
		t.Error("a name with a dot was taken")
	}
	if _, err := New(Config{Name: "w1", Region: ">"}, good); err == nil {
		t.Error("a wildcard for a region was taken")
	}
	good.Ledger = nil
	if _, err := New(Config{Name: "w1", Region: "eu"}, good); err == nil {
		t.Error("a worker without a ledger was made")
	}
}
