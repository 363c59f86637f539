package edge

import (
	"sync/atomic"
	"time"
)

const (
	// passOver is after how many silences without an answer between them a region is asked
	// last. One silence may be the fault of one worker.
	passOver = 3
	// tryAgain is how often one question looks whether such a region answers again.
	tryAgain = 2 * time.Second
)

// region is one whose workers this edge asks.
type region struct {
	name   string
	silent atomic.Int32 // silences since its last answer
	until  atomic.Int64 // instant until which it is passed over, 0 while it is not
}

// regions are whom this edge asks, the nearest first. A queue group of NATS prefers workers
// nearby but never overflows to others, so that the edge itself must go elsewhere.
type regions []*region

// newRegions are the given ones; without any the edge asks its own.
func newRegions(own string, ask []string) regions {
	if len(ask) == 0 {
		ask = []string{own}
	}
	rs := make(regions, len(ask))
	for i, name := range ask {
		rs[i] = &region{name: name}
	}
	return rs
}

// order is in which order to ask now: those that were silent come last. try says that this
// question can afford to find a region silent still, as one of many does every tryAgain.
func (rs regions) order(now instant, try bool) regions {
	passed := 0
	for _, r := range rs {
		if r.until.Load() != 0 {
			passed++
		}
	}
	if passed == 0 || len(rs) == 1 {
		return rs
	}
	first, last := make(regions, 0, len(rs)), make(regions, 0, passed)
	for _, r := range rs {
		if r.fit(now, try) {
			first = append(first, r)
		} else {
			last = append(last, r)
		}
	}
	return append(first, last...)
}

// fit says whether the region is asked in its turn.
func (r *region) fit(now instant, try bool) bool {
	until := r.until.Load()
	switch {
	case until == 0:
		return true
	case !try || now < instant(until):
		return false
	}
	// The others wait for what this one finds.
	return r.until.CompareAndSwap(until, int64(now.add(tryAgain)))
}

// answered notes that a worker of the region has answered, whatever.
func (r *region) answered() {
	r.silent.Store(0)
	r.until.Store(0)
}

// missed notes that nobody answered in time.
func (r *region) missed(now instant) {
	if r.silent.Add(1) >= passOver {
		r.until.Store(int64(now.add(tryAgain)))
	}
}
