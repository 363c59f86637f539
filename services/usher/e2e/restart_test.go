package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/natsd"
	"usher.internal/libs/pgd"
	"usher.internal/libs/testkit"
)

const (
	// outage is how long a server stays away.
	outage = 1500 * time.Millisecond
	// backWithin is what the cluster may take to work again once the server is back.
	backWithin = 10 * time.Second
)

// TestNATSRestarts: the edges answer by their fail modes and keep what they answered; nothing
// but NATS is started again.
func TestNATSRestarts(t *testing.T) { //nolint:paralleltest // answers are held to their budgets
	dir := t.TempDir()
	server := startNATS(t, dir, "127.0.0.1:0")
	url, address := server.ClientURL(), server.Addr().String()
	f := assemble(t, url, testkit.DSN(t), loadRules)
	f.outage(t, func() {
		server.Stop()
		await(t, outage)
		server = startNATS(t, dir, address)
	})
}

func startNATS(t *testing.T, dir, address string) *natsd.Server {
	t.Helper()
	server, err := natsd.Start(natsd.Options{Dir: dir, Name: "test", Listen: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

// TestPostgresRestarts: the workers answer by `uncounted` and journal it; nothing but Postgres is
// started again.
func TestPostgresRestarts(t *testing.T) { //nolint:paralleltest // answers are held to their budgets
	dir := testkit.Dir(t)
	server := startPostgres(t, dir)
	f := assemble(t, testkit.NATS(t).ClientURL(), server.DSN(), loadRules)
	f.outage(t, func() {
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(t, outage)
		server = startPostgres(t, dir)
	})
}

func startPostgres(t *testing.T, dir string) *pgd.Server {
	t.Helper()
	server, err := pgd.Start(t.Context(), pgd.Options{Dir: dir, Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// outage runs a cluster under load, has a server go and come back, and looks for what was lost.
func (f *fleet) outage(t *testing.T, restart func()) {
	t.Helper()
	r := f.recorder(t, "r1")
	one, urlOne := f.edge(t, "e1")
	two, urlTwo := f.edge(t, "e2")
	processes := append(f.workers(t, 2), one, two, r)
	l := newLoad(t, 1, 100, 400*time.Millisecond, urlOne, urlTwo)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	asked := make(chan struct{})
	go func() { defer close(asked); l.run(ctx) }()
	l.await(t, 300)
	gone := time.Now()
	restart()
	back := time.Now()
	n := 0
	eventually(t, backWithin, "strangers are let in and counted again", func() bool {
		n++
		return l.counted(urlOne, n) && l.counted(urlTwo, n)
	})
	t.Logf("away for %s, counted again %s later", back.Sub(gone).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	l.await(t, 300)
	stop()
	<-asked

	replies := l.since(time.Time{})
	l.withinBudget(t)
	f.settled(t, replies)
	f.sound(t)
	for _, p := range processes {
		p.stop(t)
	}
}

// counted says whether a viewer whom nobody knows gets a seat at the edge, by a rule that denies
// whom it cannot count.
func (l *load) counted(edge string, n int) bool {
	user, stream := fmt.Sprintf("user%d", n%loadUsers), "live-0"
	r := l.ask("nginx", edge+"/v1/nginx/web1", map[string]string{
		"X-Original-URI": "/hls/" + stream + "/index.m3u8?token=" + l.tickets[stream+" "+user],
		"X-Real-IP":      "10.9.9.9", "User-Agent": fmt.Sprintf("stranger %d at %s", n, edge),
	})
	return r.status == http.StatusOK || r.reason == "limit"
}

// await lets time pass: that of an outage is not a wait for something.
func await(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
