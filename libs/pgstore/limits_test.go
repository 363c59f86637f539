package pgstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// limited makes an open count under keys of these names, at most so many each.
func limited(mode access.Mode, most int, names ...string) func(*admission.Open) {
	return func(o *admission.Open) {
		for _, name := range names {
			k := access.Key(uuid.NewSHA1(uuid.Nil, []byte(name)))
			o.Counted = append(o.Counted, k)
			o.More = append(o.More, admission.Limit{Name: "of " + name, Subject: k, Sessions: most, Mode: mode})
		}
	}
}

// visited has somebody use a line and leave: whoever comes first otherwise waits for the line's own row, and hides a lock
// that is missing.
func (h harness) visited(line string) {
	h.t.Helper()
	v := admissiontest.Viewer{User: "visitor of " + line, Device: "d", Limit: 1, Mode: access.RefuseNew}
	r, err := h.Apply(context.Background(), []admission.Item{v.Open("a", limited(access.RefuseNew, 3, line))})
	if err != nil || r[0].Outcome != access.Allow {
		h.t.Fatalf("visiting: %+v, %v", r, err)
	}
	if _, err := h.Apply(context.Background(), []admission.Item{{Sign: &admission.Sign{Session: r[0].Session, Close: true, Reason: access.CloseStopped}}}); err != nil {
		h.t.Fatal(err)
	}
}

// TestStrictLists: 200 simultaneous opens of 20 accounts behind one line with a limit of 3, over 4 workers, admit exactly 3.
func TestStrictLists(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 4)
	for round := range 10 {
		h.visited(fmt.Sprint("line", round))
		var wg sync.WaitGroup
		var mu sync.Mutex
		admitted := 0
		for i := range 200 {
			wg.Go(func() {
				v := admissiontest.Viewer{User: fmt.Sprint("r", round, "u", i%20), Device: fmt.Sprint("d", i), Limit: 2, Mode: access.RefuseNew}
				r, err := workers[i%len(workers)].Do(context.Background(), v.Open("a", limited(access.RefuseNew, 3, fmt.Sprint("line", round))))
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
}

// TestHotLists: many writers on a few accounts, devices and lines, in every mode, with sweeps: no deadlock, never over any limit,
// soft ones never over twice theirs.
func TestHotLists(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 6)
	stop := time.Now().Add(3 * time.Second)
	watch, done := context.WithCancel(context.Background())
	var beside, writers sync.WaitGroup
	beside.Go(func() { h.neverOverKeys(watch) })
	beside.Go(func() {
		for watch.Err() == nil {
			h.Sweep()
		}
	})
	for w := range 32 {
		writers.Go(func() { h.listWriter(w, workers[w%len(workers)], stop) })
	}
	writers.Wait()
	done()
	beside.Wait()
	var deadlocks int
	if err := h.store.pool.QueryRow(context.Background(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&deadlocks); err != nil {
		t.Fatal(err)
	}
	if deadlocks != 0 {
		t.Errorf("%d deadlocks, want none", deadlocks)
	}
}

// listWriter opens and closes for accounts that share lines; each line is soft, refuses or evicts, always the same.
func (h harness) listWriter(w int, c *admission.Committer, stop time.Time) {
	rnd := rand.New(rand.NewPCG(uint64(w), 2))
	var mine []admission.Result
	for time.Now().Before(stop) {
		user := fmt.Sprintf("u%d", rnd.IntN(8))
		v := admissiontest.Viewer{User: user, Device: fmt.Sprintf("d%d", rnd.IntN(20)), Limit: 4, Mode: access.EvictOldest}
		line := rnd.IntN(6)
		item := v.Open(fmt.Sprintf("s%d", rnd.IntN(5)),
			limited([]access.Mode{access.Soft, access.RefuseNew, access.EvictOldest}[line%3], 3, fmt.Sprint("line", line)),
			limited(access.RefuseNew, 2, "device of "+user+v.Device),
			func(o *admission.Open) { o.Lease = time.Millisecond; o.More[0].Cut = 200 * time.Millisecond })
		if len(mine) > 0 && rnd.IntN(3) == 0 {
			s := mine[rnd.IntN(len(mine))]
			item = admission.Item{Sign: &admission.Sign{Session: s.Session, Close: rnd.IntN(2) == 0, Reason: access.CloseStopped}}
		}
		r, err := c.Do(context.Background(), item)
		if err != nil {
			h.t.Errorf("writer %d: %v", w, err)
			return
		}
		if r.Outcome == access.Allow {
			mine = append(mine, r)
		}
	}
}

// neverOverKeys reads the seats over and over: no account has more than 4, no key more than 3, or 6 where it is soft.
func (h harness) neverOverKeys(ctx context.Context) {
	for ctx.Err() == nil {
		var account, hard, soft int
		err := h.store.pool.QueryRow(context.Background(), `
			SELECT COALESCE((SELECT max(n) FROM (SELECT count(*) AS n FROM usher.seat GROUP BY subject) c), 0),
			       COALESCE(max(n) FILTER (WHERE NOT soft), 0), COALESCE(max(n) FILTER (WHERE soft), 0)
			  FROM (SELECT count(*) AS n, k = ANY ($1::uuid[]) AS soft FROM usher.seat CROSS JOIN unnest(also) k GROUP BY k) c`,
			[][16]byte{uuid.NewSHA1(uuid.Nil, []byte("line0")), uuid.NewSHA1(uuid.Nil, []byte("line3"))}).Scan(&account, &hard, &soft)
		switch {
		case err != nil:
			h.t.Errorf("counting seats: %v", err)
			return
		case account > 4 || hard > 3 || soft > 6:
			h.t.Errorf("an account holds %d seats, a line %d, a soft one %d; limits 4, 3, twice 3", account, hard, soft)
			return
		}
	}
}

// lineStep is one operation on a line that two accounts share: an open of one of them, or the close of a session.
type lineStep struct {
	step
	account int
}

// lineModel is a line with a limit of 3 whose two accounts have one of 2 each, all refusing.
var lineModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		live := strings.Fields(state.(string))
		in, admitted := input.(lineStep), output.(bool)
		id := fmt.Sprint(in.account, ":", in.session)
		his := 0
		for _, s := range live {
			if strings.HasPrefix(s, fmt.Sprint(in.account, ":")) {
				his++
			}
		}
		switch {
		case in.open && admitted != (his < linearLimit && len(live) < 3):
			return false, state
		case in.open && admitted:
			live = append(live, id)
			slices.Sort(live)
		case !in.open:
			live = slices.DeleteFunc(live, func(s string) bool { return s == id })
		}
		return true, strings.Join(live, " ")
	},
	Equal: func(a, b any) bool { return a == b },
}

// TestLinearizableLists asks porcupine whether some order explains what clients of two accounts behind one line saw.
func TestLinearizableLists(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 4)
	for line := range 20 {
		h.visited(fmt.Sprint("line", line))
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		for client := range 6 {
			wg.Go(func() {
				ops := playLine(t, workers[client%len(workers)], line, client)
				mu.Lock()
				history = append(history, ops...)
				mu.Unlock()
			})
		}
		wg.Wait()
		if porcupine.CheckOperationsTimeout(lineModel, history, time.Minute) != porcupine.Ok {
			t.Fatalf("line %d: no order of the operations explains what its clients saw", line)
		}
	}
}

func playLine(t *testing.T, c *admission.Committer, line, client int) []porcupine.Operation {
	rnd := rand.New(rand.NewPCG(uint64(line), uint64(client)))
	account := client % 2
	var ops []porcupine.Operation
	var mine []uuid.UUID
	for i := range 6 {
		v := admissiontest.Viewer{User: fmt.Sprint("l", line, "a", account), Device: fmt.Sprint("c", client, "-", i), Limit: linearLimit, Mode: access.RefuseNew}
		it := v.Open("a", limited(access.RefuseNew, 3, fmt.Sprint("line", line)))
		in := lineStep{step{open: true, session: it.Open.Session}, account}
		if len(mine) > 0 && rnd.IntN(2) == 0 {
			in = lineStep{step{session: mine[0]}, account}
			it = admission.Item{Sign: &admission.Sign{Session: mine[0], Close: true, Reason: access.CloseStopped}}
			mine = mine[1:]
		}
		call := time.Now().UnixNano()
		r, err := c.Do(context.Background(), it)
		if err != nil {
			t.Errorf("line %d: %v", line, err)
			return ops
		}
		admitted := in.open && r.Outcome == access.Allow
		if admitted {
			mine = append(mine, in.session)
		}
		ops = append(ops, porcupine.Operation{ClientId: client, Input: in, Output: admitted, Call: call, Return: time.Now().UnixNano()})
	}
	return ops
}
