package pgstore

import (
	"testing"
	"time"
)

func TestNodeSeats(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	silent := h.opened("silent") // for half an hour
	fresh := h.opened("fresh")
	h.exec("UPDATE usher.seat SET last_seen_at = now() WHERE session_id = $1", [16]byte(fresh.Session))
	list, err := h.store.NodeSeats(t.Context(), silent.Record.Node, time.Minute)
	if err != nil || len(list) != 2 {
		t.Fatalf("NodeSeats = %v, %v; want two", list, err)
	}
	for _, s := range list {
		if want := s.Session == silent.Session; s.Silent != want || s.Key.IsZero() {
			t.Errorf("%v: silent is %v, want %v", s.Session, s.Silent, want)
		}
	}
	if other, err := h.store.NodeSeats(t.Context(), "another", time.Minute); err != nil || len(other) != 0 {
		t.Errorf("another node's = %v, %v", other, err)
	}
}
