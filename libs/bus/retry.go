package bus

import (
	"context"
	"math/rand/v2"
	"time"
)

// Waits between attempts that may go on for ever. The longest keeps "a return is
// noticed within 2 s" (DESIGN.md §4).
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = time.Second
)

// backoff doubles its wait from attempt to attempt, with jitter. The zero value is ready.
type backoff struct{ next time.Duration }

// wait returns false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, backoffMin), backoffMax)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *backoff) reset() { b.next = 0 }
