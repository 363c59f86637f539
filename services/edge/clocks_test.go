package edge

import (
	"testing"
	"time"
)

func TestClocksOfNodes(t *testing.T) {
	t.Parallel()
	var c clocks
	at := func(d time.Duration) instant { return instant(0).add(d) }
	for _, step := range []struct {
		what  string
		node  string
		ahead time.Duration
		now   time.Duration
		want  time.Duration
	}{
		{"the first", "a", -time.Second, 0, -time.Second},
		{"a quicker one", "a", -100 * time.Millisecond, time.Second, -100 * time.Millisecond},
		{"a late one", "a", -time.Hour, 2 * time.Second, -100 * time.Millisecond},
		{"one from the future", "b", time.Hour, 0, time.Hour},
		{"its next", "b", time.Hour - time.Second, 0, time.Hour},
		{"a late one that is the first", "c", -time.Hour, 0, -maxBehind},
		{"the window before still counts", "b", 0, clockWindow, time.Hour},
		{"the clock was set right", "b", 0, 2*clockWindow + time.Second, 0},
		{"after a long silence", "a", -2 * time.Second, time.Hour, -2 * time.Second},
	} {
		if got := c.offset(step.node, step.ahead, at(step.now)); got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}
