package telemetry_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/telemetry"
)

func TestSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s telemetry.Seldom
		var lines atomic.Int64
		burst := func(want int64) {
			lines.Store(0)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if s.Allow() {
						lines.Add(1)
					}
				})
			}
			wg.Wait()
			if got := lines.Load(); got != want {
				t.Errorf("%d lines of 100, want %d", got, want)
			}
		}
		burst(1)
		time.Sleep(9 * time.Second)
		burst(0)
		time.Sleep(time.Second)
		burst(1)
	})
}
