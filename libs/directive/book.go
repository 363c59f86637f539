package directive

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// rememberRevoked is how long a revoked directive is remembered: longer than any message about it
// can be on its way, so that an older one does not bring it back.
const rememberRevoked = 48 * time.Hour

// Book keeps the directives that a process has heard of, and the Set of those in force. It is
// safe for concurrent use; readers of the Set never wait.
type Book struct {
	set atomic.Pointer[Set]

	mu      sync.Mutex // guards all below, and who replaces set
	known   map[uuid.UUID]*entry
	revoked map[uuid.UUID]time.Time // when we heard of it
}

// NewBook is an empty book.
func NewBook() *Book {
	b := &Book{known: make(map[uuid.UUID]*entry), revoked: make(map[uuid.UUID]time.Time)}
	b.set.Store(new(Set))
	return b
}

// Set is what is in force now, and what has ended by itself since the last Sweep. It is never nil.
func (b *Book) Set() *Set { return b.set.Load() }

// Put takes a directive in; fresh says that it changed the Set. One that was revoked stays so.
func (b *Book) Put(d Directive) (fresh bool) {
	e, ok := newEntry(d)
	if !ok {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, over := b.revoked[d.ID]; over || b.known[d.ID] != nil {
		return false
	}
	b.known[d.ID] = e
	b.set.Store(b.set.Load().with(e))
	return true
}

// Load takes many in at once.
func (b *Book) Load(list []Directive) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range list {
		if _, over := b.revoked[d.ID]; over || b.known[d.ID] != nil {
			continue
		}
		if e, ok := newEntry(d); ok {
			b.known[d.ID] = e
		}
	}
	b.rebuild()
}

// Revoke ends a directive for good, also one that was never heard of; fresh says that it was in
// force.
func (b *Book) Revoke(id uuid.UUID, now time.Time) (fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revoked[id] = now
	e := b.known[id]
	if e == nil {
		return false
	}
	delete(b.known, id)
	b.set.Store(b.set.Load().without(e))
	return true
}

// Sweep forgets what has ended by itself, and old revocations.
func (b *Book) Sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ended := false
	for id, e := range b.known {
		if !e.Active(now) {
			delete(b.known, id)
			ended = true
		}
	}
	for id, at := range b.revoked {
		if now.Sub(at) > rememberRevoked {
			delete(b.revoked, id)
		}
	}
	if ended {
		b.rebuild()
	}
}

// rebuild makes the set anew. The caller holds mu.
func (b *Book) rebuild() {
	list := make([]Directive, 0, len(b.known))
	for _, e := range b.known {
		list = append(list, e.Directive)
	}
	b.set.Store(NewSet(list...))
}
