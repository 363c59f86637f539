package keep

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

func first(t *testing.T, q *Queue, most int) string {
	t.Helper()
	list, err := q.First(most)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s", list)
}

func queue(t *testing.T, s *Store, lane byte) *Queue {
	t.Helper()
	q, err := s.Queue(lane)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQueuesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s, _ := opened(t, path, 1)
	a, b := queue(t, s, 1), queue(t, s, 2)
	for i := range 22 {
		if err := a.Put([]byte(fmt.Sprint("a", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put([]byte("b0"), []byte("b1")); err != nil {
		t.Fatal(err)
	}
	if got := first(t, a, 2); got != "[a0 a1]" || a.Len() != 22 {
		t.Errorf("lane 1 begins with %s of %d", got, a.Len())
	}
	if err := a.Drop(20); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s, _ = opened(t, path, 1)
	a, b = queue(t, s, 1), queue(t, s, 2)
	if err := a.Put([]byte("later")); err != nil {
		t.Fatal(err)
	}
	if got := first(t, a, 9); got != "[a20 a21 later]" || a.Len() != 3 {
		t.Errorf("lane 1 after a restart holds %s of %d", got, a.Len())
	}
	if err := a.Drop(9); err != nil {
		t.Fatal(err)
	}
	if got := first(t, b, 9); got != "[b0 b1]" || a.Len() != 0 || b.Len() != 2 {
		t.Errorf("lane 2 holds %s of %d, lane 1 %d", got, b.Len(), a.Len())
	}
	if err := b.Put(make([][]byte, MaxQueue)...); !errors.Is(err, ErrFull) || b.Len() != 2 {
		t.Errorf("Put = %v with %d, want ErrFull", err, b.Len())
	}
}
