package recorder

import (
	"errors"
	"testing"
	"time"
)

func TestPeaksTakeTheirShareOfTheTimeAlone(t *testing.T) {
	t.Parallel()
	store := new(fakeStore)
	now := time.Unix(0, 0)
	// Working out peaks takes nine seconds: between the two looks at the clock.
	a := &accountant{store: store, now: func() time.Time { now = now.Add(9 * time.Second); return now }}
	for range 12 {
		if err := a.count(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(usageEvery - 9*time.Second)
	}
	// Three minutes must lie between: of twelve minutes, in 0, 3, 6 and 9.
	if store.counted != 12 || store.peaks != 4 {
		t.Errorf("counted %d times and worked out peaks %d times, want 12 and 4", store.counted, store.peaks)
	}
	store.setFail(errAway)
	if err := a.count(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("count = %v, want %v", err, errAway)
	}
}
