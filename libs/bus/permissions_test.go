package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// strictServer knows one user for each role, with the permissions of schemas/nats.
func strictServer(t *testing.T) (url string) {
	t.Helper()
	user := func(name string, p names.Permissions) *server.User {
		return &server.User{Username: name, Password: "pw", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: p.Publish},
			Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
		}}
	}
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 26,
		Users: []*server.User{
			user(edge, names.EdgePermissions(region, "", edge)),
			user("w1", names.WorkerPermissions(region, "", "w1")),
			user("r1", names.RecorderPermissions("r1")),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(5 * time.Second) {
		t.Fatal("server is not ready")
	}
	return "nats://" + ns.Addr().String()
}

// role connects as the user of that name and collects its faults.
func role(t *testing.T, url, name string) (*bus.Conn, chan error) {
	t.Helper()
	faults := make(chan error, 64)
	c := connect(t, bus.Config{
		Name: name, Region: region, URL: url, User: name, Password: "pw",
		OnFault: func(err error) { faults <- err },
	})
	if err := c.WaitConnected(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, faults
}

func TestEachRoleGetsByWithItsPermissions(t *testing.T) {
	t.Parallel()
	url := strictServer(t)
	r, rf := role(t, url, "r1")
	if err := r.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	if err := putPolicy(t, r, 1, edge); err != nil {
		t.Fatal(err)
	}
	w, wf := role(t, url, "w1")
	e, ef := role(t, url, edge)
	stopServing := serving(t, w, e, 2, 2, decided)
	playlists(t, w, e)
	control, heard := follow(t, e), follow(t, w)
	want(t, "projection", watchProjection(t, e, edge), edge+" 1")
	want(t, "policy", watchPolicy(t, w), 1)
	publishAll(t, w, 0, 3)
	publishAll(t, r, 3, 5)
	eventually(t, 5*time.Second, "control", func() bool { return control.has(0, 5) && heard.has(0, 5) })
	eventually(t, 5*time.Second, "tick", func() bool {
		if err := w.Tick(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		return control.ticked() == 5 && heard.ticked() == 5
	})
	order := wish(1)
	for _, m := range []*usherv1.Control{order, revoked(order)} {
		if err := r.PublishDirective(within(t, 5*time.Second), m); err != nil {
			t.Errorf("PublishDirective: %v", err)
		}
	}
	if held := directives(t, r); len(held) != 1 || !held[0].Control.GetDirective().GetRevoked() {
		t.Errorf("the stream holds %v, want the revocation", held)
	}
	if _, err := r.ControlIncarnation(within(t, 5*time.Second)); err != nil {
		t.Errorf("ControlIncarnation: %v", err)
	}
	st := newStore()
	stopReading := reading(t, r, st, 10)
	put(t, e.Journal(region, edge), 0, 5)
	if err := w.Journal(region, edge).Put(within(t, 5*time.Second), names.JournalUncounted, repeats(5)); err != nil {
		t.Errorf("a worker's entry about an edge: %v", err)
	}
	eventually(t, 5*time.Second, "journal", func() bool { return st.count() == 6 })
	stopReading()
	stopServing()
	for name, faults := range map[string]chan error{"worker": wf, "edge": ef, "recorder": rf} {
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, <-faults)
		}
	}
}

func TestPermissionsKeepAnEdgeToItself(t *testing.T) {
	t.Parallel()
	url := strictServer(t)
	r, _ := role(t, url, "r1")
	if err := r.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	e, faults := role(t, url, edge)
	if _, err := e.Ask(within(t, 300*time.Millisecond), region, "other", &usherv1.AuthRequest{}); !errors.Is(err, bus.ErrTimeout) {
		t.Errorf("Ask under another name = %v, want ErrTimeout", err)
	}
	if err := receive(t, 2*time.Second, "fault", faults); !errors.Is(err, bus.ErrPermission) {
		t.Errorf("fault = %v, want ErrPermission", err)
	}
	if _, err := e.AskPlaylist(within(t, 300*time.Millisecond), region, "other", &usherv1.PlaylistRequest{}); !errors.Is(err, bus.ErrTimeout) {
		t.Errorf("AskPlaylist under another name = %v, want ErrTimeout", err)
	}
	if err := receive(t, 2*time.Second, "fault", faults); !errors.Is(err, bus.ErrPermission) {
		t.Errorf("fault = %v, want ErrPermission", err)
	}
	if err := e.Journal(region, "other").Put(within(t, 300*time.Millisecond), "decision", repeats(1)); err == nil {
		t.Error("it journaled under another name")
	}
	if err := e.Journal(region, edge).Put(within(t, 300*time.Millisecond), names.JournalUncounted, repeats(1)); err == nil {
		t.Error("it journaled as a worker does")
	}
	if _, err := e.PublishControl(within(t, 300*time.Millisecond), kill(1)); err == nil {
		t.Error("it published a control message")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := e.WatchPolicy(ctx, func(*usherv1.PolicyRevision) { t.Error("it read the policy") }); err != nil {
		t.Errorf("WatchPolicy: %v", err)
	}
	if nc, err := nats.Connect(url); err == nil {
		nc.Close()
		t.Error("a stranger came in")
	}
}

func TestTelemetryRegistersItsNames(t *testing.T) {
	t.Parallel()
	tel := telemetry.StartWith(nil)
	for range 2 { // two connections of a process share them
		connect(t, bus.Config{Name: edge, URL: "nats://" + freeAddr(t), Metrics: tel.Registry})
	}
	if _, err := tel.Registry.Gather(); err != nil {
		t.Errorf("Gather: %v", err)
	}
}
