package worker

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
)

// shelf is a CheckStore in memory.
type shelf struct {
	mu   sync.Mutex
	puts int
	rows []pgstore.CheckStatus
}

func (s *shelf) PutChecks(_ context.Context, _ string, rows []pgstore.CheckStatus) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts, s.rows = s.puts+1, rows
	return nil
}

// stored is how often rows were put, and the last of them.
func (s *shelf) stored() (puts int, rows []pgstore.CheckStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts, s.rows
}

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (s *shelf) states() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, r := range s.rows {
		all = append(all, r.Check+" "+r.State)
	}
	return strings.Join(all, ", ")
}

func TestBoardTellsWhenAStateChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		portal, site := &policy.Check{Name: "portal", Type: "ministra"}, &policy.Check{Name: "site", Type: "securetoken"}
		var p atomic.Pointer[policy.Snapshot]
		p.Store(&policy.Snapshot{Checks: map[string]*policy.Check{"portal": portal, "site": site}})
		store, reg := new(shelf), prometheus.NewRegistry()
		b := &board{
			worker: "w1", store: store, snapshot: p.Load, log: slog.New(slog.NewTextHandler(&log, nil)),
			metrics: newMetrics("w1", reg), now: time.Now, checks: map[string]*standing{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = b.Run(ctx) })
		ask := func(result, text string, open bool, took time.Duration) {
			b.asked(decide.Asking{Check: portal, Result: result, Text: text, Open: open, Took: took})
		}
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() } // synctest's clock: no waiting
		expect := func(want string, lines int) {
			t.Helper()
			if got := store.states(); got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
			if got := strings.Count(log.String(), "\n"); got != lines {
				t.Errorf("%d lines, want %d:\n%s", got, lines, log.String())
			}
		}
		pass(time.Second)
		expect("portal idle, site idle", 0)
		for i := range 100 {
			ask(decide.Yes, "", false, time.Duration(i)*time.Millisecond)
		}
		ask(decide.Unavailable, "it did not answer in time", false, 500*time.Millisecond)
		ask(decide.No, "", false, time.Millisecond)
		pass(time.Second)
		expect("portal up, site idle", 0)
		for range failingAfter {
			ask(decide.Unavailable, "it answered 500", false, time.Millisecond)
		}
		pass(time.Second)
		expect("portal failing, site idle", 1)
		ask(decide.Unavailable, "left alone", true, 0)
		pass(time.Second)
		expect("portal open, site idle", 2)
		ask(decide.Yes, "", false, time.Millisecond)
		pass(time.Second)
		expect("portal open, site idle", 2) // it may be down again in a moment
		pass(upAfter)
		expect("portal up, site idle", 3)
		if got := log.String(); strings.Count(got, "it answered 500") != 2 || !strings.Contains(got, "check answers again") {
			t.Errorf("the lines are\n%s", got)
		}
		before, rows := store.stored()
		row := rows[0]
		if row.Asked != 106 || row.Yes != 101 || row.No != 1 || row.Unavailable != 5 || row.P50 == 0 || row.P99 < 90 {
			t.Errorf("stored %+v", row)
		}
		pass(time.Minute)
		after, _ := store.stored()
		if n := after - before; n < 10 || n > 13 {
			t.Errorf("stored %d times in a minute without a change, want every 5s", n)
		}
		p.Store(&policy.Snapshot{Checks: map[string]*policy.Check{"site": site}})
		pass(time.Second)
		expect("site idle", 3)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "usher_worker_check_state" && len(f.GetMetric()) != 0 {
				t.Errorf("there are series of a check that is gone: %v", f)
			}
		}
		cancel()
		running.Wait()
		expect("", 3)
	})
}
