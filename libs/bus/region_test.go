package bus_test

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"usher.internal/libs/bus"
	"usher.internal/libs/testkit"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// regionServer is a server of a region: its JetStream domain has the region's name.
func regionServer(t *testing.T, name string, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{
		ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, JetStreamDomain: name, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 26,
		PingInterval: 200 * time.Millisecond, MaxPingsOut: 2,
	}
	change(o)
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(5 * time.Second) {
		t.Fatal("server is not ready")
	}
	return ns
}

func leafPort(s *server.Server) int {
	v, err := s.Varz(nil)
	if err != nil {
		return 0
	}
	return v.LeafNode.Port
}

// joined is a hub and a region that are joined over a link.
func joined(t *testing.T) (hub, leaf string, link *testkit.Relay) {
	t.Helper()
	h := regionServer(t, "hub", func(o *server.Options) {
		// Otherwise the leaf would learn how to go around the relay.
		o.LeafNode.Host, o.LeafNode.Port, o.LeafNode.NoAdvertise = "127.0.0.1", server.RANDOM_PORT, true
	})
	link = testkit.NewRelay(t, "127.0.0.1:"+strconv.Itoa(leafPort(h)))
	l := regionServer(t, "eu", func(o *server.Options) {
		o.LeafNode.ReconnectInterval = 100 * time.Millisecond
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats", Host: link.Addr()}}}}
	})
	eventually(t, 5*time.Second, "the link", func() bool { return l.NumLeafNodes() == 1 && h.NumLeafNodes() == 1 })
	return h.ClientURL(), l.ClientURL(), link
}

func at(t *testing.T, name, region, url string) *bus.Conn {
	t.Helper()
	c := connect(t, bus.Config{Name: name, Region: region, Hub: "hub", URL: url})
	if err := c.WaitConnected(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestARegionBehindALink(t *testing.T) {
	t.Parallel()
	hub, leaf, link := joined(t)
	r, w, e := at(t, "r1", "hub", hub), at(t, "w1", "hub", hub), at(t, edge, "eu", leaf)
	if err := r.EnsureStreams(within(t, 10*time.Second), "hub", 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.EnsureRegion(within(t, 10*time.Second), "eu", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := putPolicy(t, r, 1, edge); err != nil {
		t.Fatal(err)
	}
	projections := watchProjection(t, e, edge)
	want(t, "projection", projections, edge+" 1")
	want(t, "policy of a worker there", watchPolicy(t, at(t, "w2", "eu", leaf)), 1)
	control := follow(t, e)
	publishAll(t, w, 0, 3)
	eventually(t, 5*time.Second, "control", func() bool { return control.has(0, 3) })
	eventually(t, 5*time.Second, "tick", func() bool { return w.Tick(within(t, time.Second)) == nil && control.ticked() == 3 })
	if _, err := e.Ask(within(t, time.Second), "hub", edge, &usherv1.AuthRequest{}); !errors.Is(err, bus.ErrNoWorker) {
		t.Errorf("Ask where nobody is = %v, want ErrNoWorker", err)
	}
	background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, "hub", 2, 2, decided) })
	eventually(t, 5*time.Second, "an answer over the link", func() bool {
		_, err := e.Ask(within(t, time.Second), "hub", edge, &usherv1.AuthRequest{})
		return err == nil
	})
	st := newStore()
	background(t, func(ctx context.Context) error {
		return r.ReadJournal(ctx, "hub", st.from, 10, 20*time.Millisecond, st.take)
	})
	put(t, e.Journal("eu", edge), 0, 5)
	eventually(t, 10*time.Second, "the journal", func() bool { return st.count() == 5 })

	link.Cut()
	if _, err := e.Ask(within(t, 300*time.Millisecond), "hub", edge, &usherv1.AuthRequest{}); err == nil {
		t.Error("an answer came over a cut link")
	}
	eventually(t, 10*time.Second, "the link's end is noticed", func() bool {
		_, err := e.Ask(within(t, 100*time.Millisecond), "hub", edge, &usherv1.AuthRequest{})
		return errors.Is(err, bus.ErrNoWorker)
	})
	put(t, e.Journal("eu", edge), 5, 25)
	publishAll(t, w, 3, 5)
	if err := putPolicy(t, r, 2, edge); err != nil {
		t.Fatal(err)
	}
	fresh := watchProjection(t, e, edge)
	link.Heal()
	link.Reset()
	put(t, e.Journal("eu", edge), 25, 30)
	eventually(t, 30*time.Second, "control after the cut", func() bool { return control.has(0, 5) })
	want(t, "projection after the cut", fresh, edge+" 2")
	eventually(t, 30*time.Second, "a projection that was sent into the cut", func() bool { return len(projections) > 0 })
	want(t, "a projection that was sent into the cut", projections, edge+" 2")
	eventually(t, 60*time.Second, "the journal after the cut", func() bool { return st.count() == 30 })
	st.exactlyOnce(t, 30)
}

func TestTheHubSourcesOnlyTheRegionsOwn(t *testing.T) {
	t.Parallel()
	_, leaf, _ := joined(t)
	c := at(t, "r1", "eu", leaf)
	if err := c.EnsureRegion(within(t, time.Second), "eu", 1); err == nil {
		t.Error("a region sources itself")
	}
	if err := c.EnsureRegion(within(t, time.Second), "e.u", 1); err == nil {
		t.Error("a region of two tokens")
	}
	if got, want := names.DomainAPI("eu"), "$JS.eu.API"; got != want {
		t.Errorf("DomainAPI = %q, want %q", got, want)
	}
}
