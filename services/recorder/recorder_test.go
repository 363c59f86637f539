package recorder

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
)

// cluster is real NATS and real Postgres with recorders on them.
type cluster struct {
	store   *pgstore.Store
	edge    *bus.Conn
	connect func(name string) *bus.Conn
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	server := testkit.NATS(t)
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: testkit.DSN(t), Application: "test"}, quiet())
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(store.Close)
	c := &cluster{store: store}
	c.connect = func(name string) *bus.Conn {
		conn, err := bus.Connect(bus.Config{Name: name, Region: "eu", InProcess: server.InProcess()}, quiet())
		if err != nil {
			t.Fatalf("connecting: %v", err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	c.edge = c.connect("e1")
	return c
}

// start runs a recorder; stop ends it and waits.
func (c *cluster) start(t *testing.T, name string) (s *Service, stop func()) {
	t.Helper()
	s, err := New(Config{Name: name, Region: "eu", Admin: "127.0.0.1:0"}, Deps{
		Bus: c.connect(name), Store: c.store, Telemetry: telemetry.StartWith(nil)})
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

// put journals until it is acknowledged: the recorder makes the stream at its start.
func (c *cluster) put(t *testing.T, edge, kind string, e *usherv1.JournalEntry) {
	t.Helper()
	eventually(t, "journaling", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return c.edge.Journal("eu", edge).Put(ctx, kind, e) == nil
	})
}

func (c *cluster) row(t *testing.T, id []byte) *pgstore.DecisionRow {
	t.Helper()
	r, err := c.store.Decision(t.Context(), uuid.UUID(id))
	if err != nil {
		t.Fatalf("reading a decision: %v", err)
	}
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestRecorderStoresTheJournalOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if _, err := c.store.ApplyPolicy(t.Context(), testPolicy, "me", "first"); err != nil {
		t.Fatal(err)
	}
	s, _ := c.start(t, "r1")
	c.start(t, "r2") // both record the same journal
	foreign := row(func(r *usherv1.DecisionRow) { r.Node = "n2" })
	c.put(t, "e1", "decision", decision(foreign))
	var rows []*usherv1.DecisionRow
	for i := range 50 {
		r := row()
		rows = append(rows, r)
		if i%2 == 0 {
			c.put(t, "e1", "decision", decision(r))
		} else {
			c.put(t, "e1", "uncounted", uncounted(r))
		}
		if i == 20 { // a redelivery under another message id
			c.put(t, "e1", "decision", decision(r))
		}
	}
	c.put(t, "e1", "repeats", repeats(rows[0].GetId(), 9))
	for i, r := range rows {
		eventually(t, "recording", func() bool {
			got := c.row(t, r.GetId())
			return got != nil && (i > 0 || got.Repeats == 9)
		})
	}
	all, err := c.store.Decisions(t.Context(), pgstore.DecisionFilter{Limit: 1000})
	if err != nil || len(all) != len(rows) {
		t.Errorf("%d rows, want %d: %v", len(all), len(rows), err)
	}
	got := c.row(t, rows[0].GetId())
	if got.Edge != "e1" || got.Node != "n1" || got.Outcome != "allow" || got.Reason != "grace" || len(got.Steps) != 1 {
		t.Errorf("row = %+v", got)
	}
	if c.row(t, foreign.GetId()) != nil {
		t.Error("an entry about another edge's node was stored")
	}
	if failing := s.health.Ready(); len(failing) != 0 {
		t.Errorf("not ready: %v", failing)
	}
}

func TestRecorderGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, stop := c.start(t, "r1")
	one, two := row(), row()
	c.put(t, "e1", "decision", decision(one))
	eventually(t, "recording", func() bool { return c.row(t, one.GetId()) != nil })
	stop()
	c.put(t, "e1", "decision", decision(two))
	c.start(t, "r1")
	eventually(t, "recording after a restart", func() bool { return c.row(t, two.GetId()) != nil })
}

func TestRecorderSpreadsThePolicy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(t, "r1")
	revision, err := c.store.ApplyPolicy(t.Context(), testPolicy, "me", "first")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var worker *usherv1.PolicyRevision
	if err := c.edge.WatchPolicy(ctx, func(p *usherv1.PolicyRevision) { worker = p; cancel() }); err != nil || worker.GetRevision() != revision {
		t.Fatalf("policy = %v: %v", worker, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var edge *usherv1.Projection
	if err := c.edge.WatchProjection(ctx, "e2", func(p *usherv1.Projection) { edge = p; cancel() }); err != nil || edge.GetRevision() != revision {
		t.Fatalf("projection = %v: %v", edge, err)
	}
}

func TestRecorderTellsAKillThatNobodyTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(t, "r1")
	id, session := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	results, err := pgstore.NewLedger(c.store).Apply(t.Context(), []admission.Item{{Open: &admission.Open{
		Record: admission.Record{ID: id, Region: "eu", Edge: "e1", Node: "n1", Caller: "nginx", Stream: "news", Realm: "main", User: "u1"},
		Reason: access.Granted, Session: session, Key: access.Key(session), Subject: access.Key(id), Device: "d", Limit: -1,
		Mode: access.EvictOldest, Seat: time.Minute, Lease: 30 * time.Second,
	}}})
	if err != nil || results[0].Outcome != access.Allow {
		t.Fatalf("opening: %v, %v", results, err)
	}
	killed := time.Now()
	if e, err := c.store.KillSession(t.Context(), session, 0); err != nil || e == nil {
		t.Fatalf("killing: %v, %v", e, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var told *usherv1.Control
	_ = c.edge.FollowControl(ctx, func(_ uint64, m *usherv1.Control) { told = m; cancel() }, func(uint64, time.Time) {})
	if told.GetKind() != "kill" || uuid.UUID(told.GetSessionId()) != session || told.GetUser() != "u1" {
		t.Fatalf("told %v", told)
	}
	t.Logf("told after %s", time.Since(killed))
	eventually(t, "emptying the outbox", func() bool {
		left, err := c.store.Outbox(t.Context(), 0, 10)
		return err == nil && len(left) == 0
	})
}
