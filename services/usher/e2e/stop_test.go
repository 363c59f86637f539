package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"usher.internal/libs/testkit"
)

// TestWorkersStopUnderLoad: a rolling deploy of workers costs nobody an answer, and no answer is
// given by a fail mode.
func TestWorkersStopUnderLoad(t *testing.T) { //nolint:paralleltest // answers are held to their budgets
	f := assemble(t, testkit.NATS(t).ClientURL(), testkit.DSN(t), loadRules)
	r := f.recorder(t, "r1")
	edge, url := f.edge(t, "e1")
	workers := f.workers(t, 2)

	l := newLoad(t, 1, 60, 200*time.Millisecond, url)
	l.calm = true
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	asked := make(chan struct{})
	go func() { defer close(asked); l.run(ctx) }()
	for i := range 4 {
		at := i % len(workers)
		l.await(t, 150)
		workers[at].stop(t)
		l.await(t, 150)
		workers[at] = f.worker(t, workers[at].name)
		workers[at].said(t, "worker takes questions")
	}
	stop()
	<-asked

	replies := l.since(time.Time{})
	l.withinBudget(t)
	var refused []string
	for _, r := range replies {
		if r.status != http.StatusOK {
			refused = append(refused, fmt.Sprintf("%s at %s: %s", r.caller, r.asked.Format(time.TimeOnly+".000"), r.reason))
		}
	}
	few(t, "a viewer was refused", refused)
	f.settled(t, replies)
	f.sound(t)
	if got := f.text(t, "SELECT string_agg(r, ', ') FROM (SELECT count(*) || ' ' || reason || ' ' || edge AS r FROM usher.decisions WHERE reason NOT IN ('granted', 'unknown_node') GROUP BY reason, edge) x"); got != "" {
		t.Errorf("answers were given by a fail mode: %s", got)
	}
	for _, p := range append(workers, edge, r) {
		p.stop(t)
	}
}

// await returns when n more questions were answered.
func (l *load) await(t *testing.T, n int) {
	t.Helper()
	answered := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.replies)
	}
	want := answered() + n
	eventually(t, startWithin, fmt.Sprintf("%d more answers", n), func() bool { return answered() >= want })
}

// count is the one number that the query gives.
func (f *fleet) count(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// text is the one text that the query gives, "" for NULL.
func (f *fleet) text(t *testing.T, query string, args ...any) string {
	t.Helper()
	var text *string
	if err := f.pool.QueryRow(t.Context(), query, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if text == nil {
		return ""
	}
	return *text
}

// slowBackend is an operator's own subscriber system that answers when it is told to.
type slowBackend struct {
	*httptest.Server
	asked atomic.Int64
	gate  chan struct{}
	once  sync.Once
}

func (b *slowBackend) release() { b.once.Do(func() { close(b.gate) }) }

func newSlowBackend(t *testing.T) *slowBackend {
	t.Helper()
	b := &slowBackend{gate: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		select {
		case <-b.gate:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(func() { b.release(); b.Close() })
	return b
}

// TestEdgeStops: SIGTERM to an edge. Whoever has asked is answered, what it decided alone gets
// to its row, and the last signs of life to their sessions.
func TestEdgeStops(t *testing.T) {
	t.Parallel()
	backend := newSlowBackend(t)
	f := assemble(t, testkit.NATS(t).ClientURL(), testkit.DSN(t), `
  billing: {type: http, url: "`+backend.URL+`", timeout: 8s}
streams:
  - {match: "slow-*", auth: billing}
  - {match: "**", auth: site}
`)
	f.recorder(t, "r1")
	edge, url := f.edge(t, "e1")
	f.workers(t, 1)
	l := &load{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 20 * time.Second}}
	t.Cleanup(l.client.CloseIdleConnections)
	viewer := func(n int, uri string) {
		l.ask("nginx", url+"/v1/nginx/web1", map[string]string{
			"X-Original-URI": uri, "X-Real-IP": "10.1.0.1", "User-Agent": fmt.Sprintf("player/%d", n),
		})
	}
	const shown, waiting, refused = 7, 20, 5
	viewer(0, "/hls/news/index.m3u8?token="+signer(t)("news", "anna"))
	for range shown - 1 {
		viewer(0, "/hls/news/1.ts")
	}
	for i := range refused {
		l.ask("astra", fmt.Sprintf("%s/v1/astra/nobody%d", url, i), nil)
	}
	var inFlight sync.WaitGroup
	for i := range waiting {
		inFlight.Go(func() { viewer(i+1, "/hls/slow-1/index.m3u8?token=any") })
	}
	eventually(t, startWithin, "the backend is asked", func() bool { return backend.asked.Load() == waiting })

	edge.signal(syscall.SIGTERM)
	eventually(t, startWithin, "nobody can connect any more", func() bool { return !reachable(url) })
	backend.release()
	inFlight.Wait()
	edge.stop(t)

	replies := l.since(time.Time{})
	for i, r := range replies {
		want := http.StatusOK
		if r.caller == "astra" {
			want = http.StatusForbidden
		}
		if r.err != nil || r.status != want {
			t.Errorf("answer %d: %d %s (%v), want %d", i, r.status, r.reason, r.err, want)
		}
	}
	f.settled(t, replies)
	if got := f.count(t, "SELECT requests FROM usher.sessions WHERE decision_id = $1", [16]byte(replies[0].decision)); got != shown {
		t.Errorf("the session shows %d requests, want %d", got, shown)
	}
	if got := f.count(t, "SELECT count(*) FROM usher.sessions WHERE closed_at IS NOT NULL"); got != 0 {
		t.Errorf("the edge's stop ended %d sessions, want none", got)
	}
}

// reachable says whether somebody listens at the URL. A packet that is dropped means no.
func reachable(url string) bool {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), 200*time.Millisecond)
	if err != nil {
		var timeout net.Error
		return errors.As(err, &timeout) && timeout.Timeout() // perhaps only slow: ask again
	}
	_ = conn.Close()
	return true
}
