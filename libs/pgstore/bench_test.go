package pgstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// BenchmarkApply is set-based admission with its audit rows, alone: new sessions of random users with limit 3, four
// calls in flight.
func BenchmarkApply(b *testing.B) { benchmarkApply(b, func(*admission.Open) {}) }

// BenchmarkApplyLists is the same with three limits each: of the user, his device and his line.
func BenchmarkApplyLists(b *testing.B) {
	benchmarkApply(b, func(o *admission.Open) {
		limited(access.RefuseNew, 3, "device of "+o.User+o.Device, "line of "+o.User)(o)
	})
}

func benchmarkApply(b *testing.B, change func(*admission.Open)) {
	for _, batch := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint("batch ", batch), func(b *testing.B) {
			h := newHarness(b)
			calls := make(chan struct{})
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range calls {
						items := make([]admission.Item, batch)
						for i := range items {
							v := admissiontest.Viewer{User: fmt.Sprint("u", rand.IntN(100000)), Device: fmt.Sprint("d", rand.IntN(1000)), Limit: 3, Mode: access.RefuseNew}
							items[i] = v.Open(fmt.Sprint("s", rand.IntN(100)), change)
						}
						if _, err := h.Apply(context.Background(), items); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				calls <- struct{}{}
			}
			close(calls)
			wg.Wait()
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

// BenchmarkGrants is what a new viewer of a middleware costs besides its answer: a look-up that finds
// nothing and a put, by many at once.
func BenchmarkGrants(b *testing.B) {
	_, w := granting(b, 1)
	var n atomic.Uint32
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			f := forViewer(0, "news", "203.0.113.7")
			binary.BigEndian.PutUint32(f.Who[:], i)
			if got, err := w[0].Find(b.Context(), f, false); err != nil || len(got) != 0 {
				b.Fatalf("Find = %+v, %v", got, err)
			}
			keep(b, w[0], grantOf("portal", "17", f))
		}
	})
}
