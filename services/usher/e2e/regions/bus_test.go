package regions_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/bus"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/usher/creds"
)

// background runs do until the test ends.
func background(t *testing.T, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("background: %v", err)
		}
	})
}

// entries are what a recorder has read, each id with how often.
type entries struct {
	mu   sync.Mutex
	at   uint64
	seen map[string]int
	last bus.Entry
}

func (e *entries) take(_ context.Context, b bus.JournalBatch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range b.Entries {
		e.seen[x.Entry.GetId()]++
		e.last = x
	}
	e.at = b.Last
	return nil
}

func (e *entries) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

func entry(id string) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{Id: id, What: &usherv1.JournalEntry_Repeats{Repeats: &usherv1.Repeats{DecisionId: []byte(id), Total: 1}}}
}

func decide(_ context.Context, edge string, _ *usherv1.AuthRequest) *usherv1.AuthReply {
	return &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "allow", Reason: edge}
}

// TestEachRoleGetsByOnTheServersOfDeployments runs each role with its credentials on the servers as
// they are deployed: edges in the hub and in a region.
func TestEachRoleGetsByOnTheServersOfDeployments(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	r.startHub(t)
	r.startRegion(t)
	faults := make(chan error, 256)
	rec := r.connect(t, r.hub[0], creds.Recorder, "r1", "hub", faults)
	if err := rec.EnsureStreams(within(t, 30*time.Second), "hub", 3); err != nil {
		t.Fatal(err)
	}
	if err := rec.EnsureRegion(within(t, 30*time.Second), "eu", 1); err != nil {
		t.Fatal(err)
	}
	if err := rec.PutPolicy(within(t, 10*time.Second), &usherv1.PolicyRevision{Revision: 1, Source: "version: 1"},
		map[string]*usherv1.Projection{"any": {Revision: 1}, names.EdgeProjectionKey("e2"): {Revision: 1, Nodes: []*usherv1.NodeView{{Name: "n"}}}}); err != nil {
		t.Fatal(err)
	}
	w := r.connect(t, r.hub[1], creds.Worker, "w1", "hub", faults)
	background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, "hub", 4, 4, decide) })
	read := &entries{seen: map[string]int{}}
	background(t, func(ctx context.Context) error {
		return rec.ReadJournal(ctx, "hub", func(time.Time) (uint64, error) { return read.at, nil }, 10, 20*time.Millisecond, read.take)
	})
	policies := make(chan int64, 4)
	background(t, func(ctx context.Context) error {
		return w.WatchPolicy(ctx, func(p *usherv1.PolicyRevision) { policies <- p.GetRevision() })
	})
	if got := receive(t, "the worker's policy", policies); got != 1 {
		t.Errorf("revision %d, want 1", got)
	}
	near := r.connect(t, r.hub[2], creds.Edge, "e1", "hub", faults)
	far := r.connect(t, r.eu, creds.Edge, "e2", "eu", faults)
	for i, e := range []*bus.Conn{near, far} {
		name, region := []string{"e1", "e2"}[i], []string{"hub", "eu"}[i]
		eventually(t, 20*time.Second, name+" is answered", func() bool {
			reply, err := e.Ask(within(t, time.Second), "hub", name, &usherv1.AuthRequest{})
			return err == nil && reply.GetReason() == name
		})
		if _, err := e.Ask(within(t, 2*time.Second), "nowhere", name, &usherv1.AuthRequest{}); !errors.Is(err, bus.ErrNoWorker) {
			t.Errorf("%s: asking where nobody is = %v, want ErrNoWorker", name, err)
		}
		views, controls, ticks := make(chan *usherv1.Projection, 4), make(chan uint64, 16), make(chan uint64, 64)
		background(t, func(ctx context.Context) error {
			return e.WatchProjection(ctx, name, func(p *usherv1.Projection) { views <- p })
		})
		background(t, func(ctx context.Context) error {
			return e.FollowControl(ctx, func(seq uint64, _ *usherv1.Control) { controls <- seq },
				func(last uint64, _ time.Time) {
					select {
					case ticks <- last:
					default:
					}
				})
		})
		if p := receive(t, name+"'s projection", views); len(p.GetNodes()) != i {
			t.Errorf("%s got a projection of %d nodes, want %d", name, len(p.GetNodes()), i)
		}
		seq, err := w.PublishControl(within(t, 5*time.Second), &usherv1.Control{Kind: "kill", SessionId: []byte{byte(i)}, AtUnixMs: 1})
		if err != nil {
			t.Fatal(err)
		}
		for got := uint64(0); got != seq; got = receive(t, name+"'s control", controls) {
		}
		eventually(t, 10*time.Second, name+" hears the tick", func() bool {
			return w.Tick(within(t, time.Second)) == nil && len(ticks) > 0
		})
		if err := e.Journal(region, name).Put(within(t, 10*time.Second), names.JournalRepeats, entry(name)); err != nil {
			t.Errorf("%s's journal: %v", name, err)
		}
		eventually(t, 30*time.Second, name+"'s entry is read in the hub", func() bool { return read.count() == i+1 })
		if read.last.Region != region || read.last.Edge != name {
			t.Errorf("read as of %s in %s, want %s in %s", read.last.Edge, read.last.Region, name, region)
		}
	}
	if len(faults) > 0 {
		t.Errorf("a role was refused something that it needs: %v", <-faults)
	}
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come", what)
		panic("unreachable")
	}
}
