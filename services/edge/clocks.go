package edge

import (
	"sync"
	"time"
)

const (
	// clockWindow is how long a node's offset is gathered before it is forgotten: clocks drift, and are set.
	clockWindow = 5 * time.Minute
	// maxBehind is how much of an event's age may be its node's slow clock. What is older is late.
	maxBehind = 30 * time.Second
)

// clocks are how far the clocks of nodes are off ours, by what they say of their events. An event
// comes after it happened, so that the most that any is ahead of its coming is what the clock is ahead, less the
// shortest way: one from the future is certain, one from the past may be late.
type clocks struct {
	mu    sync.Mutex // guards nodes
	nodes map[string]nodeClock
}

type nodeClock struct {
	now, before time.Duration // of this window and the one before
	begun       instant
	old         bool // there is a window before
}

// offset takes in how far an event is ahead of its coming, and gives how far its node's clock is.
func (c *clocks) offset(node string, ahead time.Duration, now instant) time.Duration {
	ahead = max(ahead, -maxBehind)
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[node]
	switch {
	case !ok || now.since(n.begun) >= 2*clockWindow:
		n = nodeClock{now: ahead, begun: now}
	case now.since(n.begun) >= clockWindow:
		n = nodeClock{now: ahead, before: n.now, begun: now, old: true}
	}
	n.now = max(n.now, ahead)
	if c.nodes == nil {
		c.nodes = make(map[string]nodeClock)
	}
	c.nodes[node] = n // names are those of the policy
	if n.old {
		return max(n.now, n.before)
	}
	return n.now
}
