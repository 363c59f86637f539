package bus_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/natsd"
	"usher.internal/libs/testkit"
)

const (
	region = "eu"
	edge   = "e17"
)

// connect opens a connection that is closed with the test.
func connect(t *testing.T, cfg bus.Config) *bus.Conn {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	c, err := bus.Connect(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone already
	})
	return c
}

// connected is connect that waits until the connection stands.
func connected(t *testing.T, s *natsd.Server, name string) *bus.Conn {
	t.Helper()
	c := connect(t, bus.Config{Name: name, Region: region, URL: s.ClientURL()})
	if err := c.WaitConnected(within(t, 5*time.Second)); err != nil {
		t.Fatalf("WaitConnected: %v", err)
	}
	return c
}

// withStreams is a server with its streams and a connection to it.
func withStreams(t *testing.T) (*natsd.Server, *bus.Conn) {
	t.Helper()
	s := testkit.NATS(t)
	c := connected(t, s, "test")
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatalf("EnsureStreams: %v", err)
	}
	return s, c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// background runs do until the test ends, and fails the test on its error.
func background(t *testing.T, do func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("background: %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Error("background function doesn't stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually polls until ok or the time is over.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v still not: %s", d, what)
		}
	}
}

func receive[T any](t *testing.T, d time.Duration, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(d):
		t.Fatalf("no %s within %v", what, d)
		panic("unreachable")
	}
}

// restartable is a server that can be stopped and started on the same port and directory.
type restartable struct {
	t    *testing.T
	dir  string
	addr string
	s    *natsd.Server
}

func newRestartable(t *testing.T) *restartable {
	t.Helper()
	r := &restartable{t: t, dir: t.TempDir(), addr: freeAddr(t)}
	r.start()
	t.Cleanup(func() { r.s.Stop() })
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	var err error
	for range 50 { // the port may take a moment to be free
		if r.s, err = natsd.Start(natsd.Options{Dir: r.dir, Listen: r.addr, MaxStore: 1 << 30}); err == nil {
			return
		}
	}
	r.t.Fatalf("starting nats-server again: %v", err)
}

func (r *restartable) restart() {
	r.t.Helper()
	r.s.Stop()
	r.start()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
