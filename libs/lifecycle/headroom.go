package lifecycle

import (
	"math"
	"runtime"
	"runtime/debug"
)

// headroom is how much a process may allocate between two garbage collections, at least.
const headroom = 128 << 20

// Headroom keeps the garbage collector of a service whose live heap is small from running many
// times a second: it holds memory that is never touched, so that it costs address space and
// nothing else, and that the collector counts when it waits for the heap to double. A large
// heap is collected as ever. Where GOMEMLIMIT sets a limit it does nothing, since that counts
// address space too. release gives it back.
func Headroom() (release func()) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	ballast := make([]byte, headroom/2)
	return func() { runtime.KeepAlive(ballast) }
}
