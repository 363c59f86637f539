package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/bus"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

func revision(n int64, edges ...string) (*usherv1.PolicyRevision, map[string]*usherv1.Projection) {
	views := map[string]*usherv1.Projection{names.AnyProjectionKey: {Revision: n}}
	for _, e := range edges {
		views[names.EdgeProjectionKey(e)] = &usherv1.Projection{Revision: n, Nodes: []*usherv1.NodeView{{Name: e}}}
	}
	return &usherv1.PolicyRevision{Revision: n, Source: fmt.Sprint("revision ", n)}, views
}

func putPolicy(t *testing.T, c *bus.Conn, n int64, edges ...string) error {
	t.Helper()
	p, views := revision(n, edges...)
	return c.PutPolicy(within(t, 10*time.Second), p, views)
}

func watchPolicy(t *testing.T, c *bus.Conn) <-chan int64 {
	t.Helper()
	got := make(chan int64, 64)
	background(t, func(ctx context.Context) error {
		return c.WatchPolicy(ctx, func(p *usherv1.PolicyRevision) { got <- p.GetRevision() })
	})
	return got
}

func watchProjection(t *testing.T, c *bus.Conn, edge string) <-chan string {
	t.Helper()
	got := make(chan string, 64)
	background(t, func(ctx context.Context) error {
		return c.WatchProjection(ctx, edge, func(p *usherv1.Projection) {
			name := "any"
			if len(p.GetNodes()) > 0 {
				name = p.GetNodes()[0].GetName()
			}
			got <- fmt.Sprint(name, " ", p.GetRevision())
		})
	})
	return got
}

func want[T comparable](t *testing.T, what string, ch <-chan T, v T) {
	t.Helper()
	if got := receive(t, 5*time.Second, what, ch); got != v {
		t.Errorf("%s = %v, want %v", what, got, v)
	}
}

func TestPolicyReachesWatchersWithinASecond(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	if err := putPolicy(t, c, 1); err != nil {
		t.Fatal(err)
	}
	got := watchPolicy(t, connected(t, s, "w1"))
	want(t, "value in force", got, 1)
	for n := int64(2); n < 6; n++ {
		begin := time.Now()
		if err := putPolicy(t, c, n); err != nil {
			t.Fatal(err)
		}
		want(t, "change", got, n)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("revision %d took %v", n, d)
		}
	}
}

func TestAnOlderRevisionNeverReplacesANewer(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	if err := putPolicy(t, c, 5, edge); err != nil {
		t.Fatal(err)
	}
	if err := putPolicy(t, c, 4, edge, "other"); !errors.Is(err, bus.ErrStale) {
		t.Errorf("older = %v, want ErrStale", err)
	}
	if err := putPolicy(t, c, 5, edge); err != nil {
		t.Errorf("the same again = %v", err)
	}
	p, views := revision(5)
	p.Source = "another text"
	if err := c.PutPolicy(within(t, time.Second), p, views); !errors.Is(err, bus.ErrStale) {
		t.Errorf("another text under the same number = %v, want ErrStale", err)
	}
	want(t, "policy", watchPolicy(t, c), 5)
	want(t, "projection", watchProjection(t, c, edge), edge+" 5")
	want(t, "projection of an edge that only the refused one named", watchProjection(t, connected(t, s, "x"), "other"), "any 5")
}

func TestConcurrentRevisionsEndWithTheNewest(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	const last = 16
	var wg sync.WaitGroup
	for n := int64(1); n <= last; n++ {
		wg.Go(func() {
			// Each revision names an edge of its own besides the common one.
			err := putPolicy(t, c, n, edge, fmt.Sprint("only", n))
			if err != nil && !errors.Is(err, bus.ErrStale) {
				t.Errorf("revision %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	want(t, "policy", watchPolicy(t, c), last)
	want(t, "projection", watchProjection(t, c, edge), fmt.Sprint(edge, " ", last))
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(names.ProjectionBucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys()
	if err != nil || len(keys) != 3 {
		t.Errorf("keys = %v, %v, want the common edge, the newest's own, and any", keys, err)
	}
}

func TestAnEdgeReadsItsOwnProjectionElseTheOneForAny(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	got := watchProjection(t, connected(t, s, edge), edge) // before anything is there
	steps := []struct {
		edges []string
		want  string
	}{
		{nil, "any 1"},
		{[]string{edge, "other"}, edge + " 2"},
		{[]string{edge}, edge + " 3"},
		{[]string{"other"}, "any 4"}, // vanished: purged
		{[]string{edge}, edge + " 5"},
	}
	for i, step := range steps {
		if err := putPolicy(t, c, int64(i+1), step.edges...); err != nil {
			t.Fatal(err)
		}
		// Between two revisions the one for any may be seen for a moment; what
		// stays is what counts.
		eventually(t, 3*time.Second, step.want, func() bool {
			select {
			case v := <-got:
				return v == step.want
			default:
				return false
			}
		})
	}
}

func TestAnEdgeOfItsOwnNeverSeesTheOneForAny(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	if err := putPolicy(t, c, 1, edge); err != nil {
		t.Fatal(err)
	}
	got := watchProjection(t, connected(t, s, edge), edge)
	want(t, "first", got, edge+" 1")
	for n := int64(2); n < 10; n++ {
		if err := putPolicy(t, c, n, edge); err != nil {
			t.Fatal(err)
		}
		want(t, "change", got, fmt.Sprint(edge, " ", n))
	}
}

func TestWatchersSurviveRestartsAndANewBucket(t *testing.T) {
	t.Parallel()
	srv := newRestartable(t)
	c := connected(t, srv.s, "w1")
	watcher := connected(t, srv.s, edge)
	policies := watchPolicy(t, watcher) // before the bucket is there
	views := watchProjection(t, watcher, edge)
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	if err := putPolicy(t, c, 1, edge); err != nil {
		t.Fatal(err)
	}
	want(t, "policy", policies, 1)
	want(t, "projection", views, edge+" 1")
	srv.restart()
	if err := c.WaitConnected(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "revision 2 is stored", func() bool { return putPolicy(t, c, 2, edge) == nil })
	want(t, "policy", policies, 2)
	want(t, "projection", views, edge+" 2")
	js, err := raw(t, srv.s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{names.PolicyBucket, names.ProjectionBucket} {
		if err := js.DeleteKeyValue(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	if err := putPolicy(t, c, 3, edge); err != nil {
		t.Fatal(err)
	}
	want(t, "policy", policies, 3)
	want(t, "projection", views, edge+" 3")
}

func TestGarbageInABucketLeavesTheLastValueInForce(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	if err := putPolicy(t, c, 1, edge); err != nil {
		t.Fatal(err)
	}
	policies, views := watchPolicy(t, c), watchProjection(t, c, edge)
	want(t, "policy", policies, 1)
	want(t, "projection", views, edge+" 1")
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for bucket, key := range map[string]string{names.PolicyBucket: names.PolicyKey, names.ProjectionBucket: names.EdgeProjectionKey(edge)} {
		kv, err := js.KeyValue(bucket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(key, []byte("\xff\xff\xff")); err != nil {
			t.Fatal(err)
		}
	}
	if err := putPolicy(t, c, 2, edge); err != nil { // and it can be mended
		t.Fatal(err)
	}
	want(t, "policy", policies, 2)
	want(t, "projection", views, edge+" 2")
}
