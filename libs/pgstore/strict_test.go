package pgstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// commit runs a committer on the harness's ledger until the test ends.
func commit(t testing.TB, l admission.Ledger, n int) []*admission.Committer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	all := make([]*admission.Committer, n)
	for i := range all {
		all[i] = admission.NewCommitter(l, admission.CommitterOptions{})
		wg.Go(func() { _ = all[i].Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return all
}

// TestStrict: 300 simultaneous opens of one user with limit 3 over 4 workers admit exactly 3, every time.
func TestStrict(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 4)
	for round := range 50 {
		user := fmt.Sprintf("u%d", round)
		var wg sync.WaitGroup
		var mu sync.Mutex
		admitted := 0
		for i := range 300 {
			wg.Go(func() {
				v := admissiontest.Viewer{User: user, Device: fmt.Sprintf("d%d", i), Limit: 3, Mode: access.RefuseNew}
				r, err := workers[i%len(workers)].Do(context.Background(), v.Open("a"))
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if r.Outcome == access.Allow {
					mu.Lock()
					admitted++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if admitted != 3 {
			t.Fatalf("round %d: %d admitted, want 3", round, admitted)
		}
	}
	if got, want := len(h.Live()), 50*3; got != want {
		t.Errorf("%d live sessions, want %d", got, want)
	}
	if got, want := h.Rows(), 50*300; got != want {
		t.Errorf("%d audit rows, want %d", got, want)
	}
}

// TestHotUsers: 64 writers on 10 hot users, every kind of item, both modes: no deadlock, never over the limit.
func TestHotUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 8)
	const limit = 3
	stop := time.Now().Add(3 * time.Second)
	watch, done := context.WithCancel(context.Background())
	var watcher, writers sync.WaitGroup
	watcher.Go(func() { h.neverOver(watch, limit) })
	for w := range 64 {
		writers.Go(func() { h.writer(w, workers[w%len(workers)], limit, stop) })
	}
	writers.Wait()
	done()
	watcher.Wait()
	var deadlocks int
	if err := h.store.pool.QueryRow(context.Background(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&deadlocks); err != nil {
		t.Fatal(err)
	}
	if deadlocks != 0 {
		t.Errorf("%d deadlocks, want none", deadlocks)
	}
}

// writer does random things to ten users until stop.
func (h harness) writer(w int, c *admission.Committer, limit int, stop time.Time) {
	rnd := rand.New(rand.NewPCG(uint64(w), 1))
	ctx := context.Background()
	var mine []admission.Result
	for time.Now().Before(stop) {
		user := fmt.Sprintf("u%d", rnd.IntN(10))
		mode := access.RefuseNew
		if rnd.IntN(2) == 0 {
			mode = access.EvictOldest
		}
		v := admissiontest.Viewer{User: user, Device: fmt.Sprintf("d%d", rnd.IntN(40)), Limit: limit, Mode: mode}
		item := v.Open(fmt.Sprintf("s%d", rnd.IntN(5)), func(o *admission.Open) {
			o.Lease = time.Millisecond // bars would quieten the test
			o.StillPlaying = rnd.IntN(20) == 0
		})
		if len(mine) > 0 && rnd.IntN(3) == 0 {
			s := mine[rnd.IntN(len(mine))]
			item = admission.Item{Sign: &admission.Sign{Session: s.Session, Close: rnd.IntN(2) == 0, Reason: access.CloseStopped}}
		}
		if len(mine) > 0 && rnd.IntN(30) == 0 {
			h.Kill(mine[rnd.IntN(len(mine))].Session, time.Millisecond)
		}
		if len(mine) > 0 && rnd.IntN(30) == 0 {
			h.Expire(mine[rnd.IntN(len(mine))].Session)
		}
		r, err := c.Do(ctx, item)
		if err != nil {
			h.t.Errorf("writer %d: %v", w, err)
			return
		}
		if r.Outcome == access.Allow {
			mine = append(mine, r)
		}
	}
}

// neverOver reads the seats over and over: no subject may ever hold more than its limit.
func (h harness) neverOver(ctx context.Context, limit int) {
	for ctx.Err() == nil {
		var most int
		err := h.store.pool.QueryRow(context.Background(),
			"SELECT COALESCE(max(n), 0) FROM (SELECT count(*) AS n FROM usher.seat GROUP BY subject) c").Scan(&most)
		if err != nil {
			h.t.Errorf("counting seats: %v", err)
			return
		}
		if most > limit {
			h.t.Errorf("a subject holds %d seats, limit %d", most, limit)
			return
		}
	}
}
