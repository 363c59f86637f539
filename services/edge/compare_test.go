package edge

import (
	"sync"
	"testing"
	"time"

	"usher.internal/schemas/proto/usherv1"
)

// TestAllSeatsOfANodeAreComparedWithItsLists: once two of them were whole and the ids are known to be the
// same, again while something is given back, and then every ten minutes.
func TestAllSeatsOfANodeAreComparedWithItsLists(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		var mu sync.Mutex
		var lists []*usherv1.NodeList
		absent := int32(7)
		seats := func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
			mu.Lock()
			defer mu.Unlock()
			r := &usherv1.SeatsReply{Ok: true}
			if l := m.GetList(); l != nil {
				lists = append(lists, l)
				r.Absent, absent = absent, 0
			}
			return r, nil
		}
		n.set(func(n *server) { n.seats = seats })
		seen := func() []*usherv1.NodeList { mu.Lock(); defer mu.Unlock(); return lists }
		b.pollers.of("n1").questioned(b.now())
		n.plays("before-the-restart", "a001")
		time.Sleep(5 * time.Minute)
		if len(seen()) != 0 {
			t.Fatalf("%d comparisons by ids that nobody has asked with", len(seen()))
		}
		b.opens(t, n, "1001", "a001")
		time.Sleep(time.Minute)
		got := seen()
		if len(got) != 2 || len(got[0].GetKeys()) != 2 || got[0].GetNode() != "n1" {
			t.Fatalf("compared %v, want twice with both sessions", got)
		}
		if age := got[0].GetAgeMs(); age < 23_000 || age > 28_000 {
			t.Errorf("age = %d ms, want a poll's interval and ten seconds", age)
		}
		time.Sleep(11 * time.Minute)
		if len(seen()) != 3 {
			t.Errorf("%d comparisons, want one more after ten minutes", len(seen()))
		}
	})
}
