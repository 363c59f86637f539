package edge

import (
	"sync"
	"time"

	"usher.internal/libs/access"
)

const (
	// denialMemory is how long a denial is repeated without asking again.
	denialMemory = time.Second
	// maxDenials bounds what a flood of bad tokens may take up.
	maxDenials = 32768
)

// denials remembers the denials of the last second under equal questions (same). Two
// maps take turns, so that nothing has to be searched for what is over.
type denials struct {
	mu     sync.Mutex // guards all below
	young  map[access.Key]denial
	old    map[access.Key]denial
	turned instant
}

type denial struct {
	decision access.Decision
	until    instant
}

func newDenials() *denials { return &denials{young: make(map[access.Key]denial)} }

// put remembers a denial from now on.
func (m *denials) put(k access.Key, d access.Decision, now instant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now)
	if len(m.young) < maxDenials {
		m.young[k] = denial{d, now.add(denialMemory)}
	}
}

// clear forgets all denials: who may watch has changed.
func (m *denials) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young, m.old = make(map[access.Key]denial), nil
}

// get finds a denial that still stands: not over, and not older than the policy.
func (m *denials) get(k access.Key, now instant, revision int64) (access.Decision, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now)
	d, ok := m.young[k]
	if !ok {
		d, ok = m.old[k]
	}
	if !ok || now >= d.until || d.decision.Revision < revision {
		return access.Decision{}, false
	}
	return d.decision, true
}

func (m *denials) turn(now instant) {
	if now.since(m.turned) < denialMemory {
		return
	}
	m.young, m.old, m.turned = make(map[access.Key]denial), m.young, now
}
