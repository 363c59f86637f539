package telemetry

import (
	"sync/atomic"
	"time"
)

// seldomEvery is the least time between two lines about the same thing.
const seldomEvery = 10 * time.Second

// Seldom lets one of many log lines about the same thing through: what goes wrong for each
// question goes wrong a thousand times a second. The zero value is ready to use, from any
// goroutine.
type Seldom struct{ last atomic.Int64 }

// Allow says whether the line should be written: the first time, and then once in ten seconds.
func (s *Seldom) Allow() bool {
	now := time.Now().UnixNano()
	last := s.last.Load()
	return (last == 0 || now-last >= int64(seldomEvery)) && s.last.CompareAndSwap(last, now)
}
