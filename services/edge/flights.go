package edge

import (
	"sync"
	"time"

	"usher.internal/libs/access"
)

// flights makes one question out of equal ones that are asked at the same time.
type flights struct {
	mu   sync.Mutex // guards open
	open map[access.Key]*flight
}

type flight struct {
	done     chan struct{} // closed when decision is set
	decision access.Decision
}

func newFlights() *flights { return &flights{open: make(map[access.Key]*flight)} }

// do runs ask for the first of equal questions and gives its decision to all. led says
// that this call was the first. It is not ok when the deadline passed while
// waiting for another's answer, or when that one's ask panicked.
func (f *flights) do(k access.Key, deadline time.Time, ask func() access.Decision) (d access.Decision, led, ok bool) {
	f.mu.Lock()
	if other := f.open[k]; other != nil {
		f.mu.Unlock()
		return other.wait(deadline)
	}
	mine := &flight{done: make(chan struct{})}
	f.open[k] = mine
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.open, k)
		f.mu.Unlock()
		close(mine.done)
	}()
	mine.decision = ask()
	return mine.decision, true, true
}

func (o *flight) wait(deadline time.Time) (d access.Decision, led, ok bool) {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-o.done:
		return o.decision, false, o.decision.Outcome != ""
	case <-t.C:
		return access.Decision{}, false, false
	}
}
