package edge

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

const (
	// tombstone is how long an ended session is remembered beyond its bar: an answer of
	// before its end may still be on its way here.
	tombstone = 30 * time.Second
	// maxBars bounds what is remembered; control messages come from workers alone.
	maxBars = 1 << 20
)

// bars are the sessions that were ended by force, and how long their keys are refused.
type bars struct {
	mu   sync.RWMutex // guards keys
	keys map[access.Key]*bar
}

type bar struct {
	session uuid.UUID
	reason  access.CloseReason
	realm   string
	user    string
	// stream and device are what the session was, as workers name them.
	stream, device string
	// until is the end of the bar, keep that of the memory of the session's end.
	until, keep instant
	row         *access.Decision // what the first refusal was answered; guarded by bars.mu
}

func newBars() *bars { return &bars{keys: make(map[access.Key]*bar)} }

// put notes an ended session. The same end told twice changes nothing, and of two
// sessions under one key the longer bar stays.
func (b *bars) put(k access.Key, n *bar) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.keys[k]
	if old != nil && (old.session == n.session || old.until > n.until) {
		return
	}
	if old == nil && len(b.keys) >= maxBars {
		return
	}
	b.keys[k] = n
}

// ended says how the session was ended, if it was lately.
func (b *bars) ended(k access.Key, session uuid.UUID) (access.CloseReason, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := b.keys[k]
	if n == nil || n.session != session {
		return "", false
	}
	return n.reason, true
}

// latest says how the session under a key was ended, if one was lately.
func (b *bars) latest(k access.Key) (access.CloseReason, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := b.keys[k]
	if n == nil {
		return "", false
	}
	return n.reason, true
}

// means says whether the bar is for whoever asks. The ids of some callers start again with them: then
// another viewer has the key, or the same one elsewhere, and a worker knows whether he may.
func (n *bar) means(q *question) bool {
	if q.CallerSession == "" || once(q.CallerSession) {
		return true
	}
	return (n.stream == q.Stream || n.stream == q.own) && n.device == q.device()
}

// refuse gives the decision that refuses a barred key; first makes it the first
// time, later ones repeat its row. Where the policy is tried out an eviction bars nobody.
func (b *bars) refuse(q *question, now instant, tried bool, first func(*bar) access.Decision) (d access.Decision, repeated, barred bool) {
	b.mu.RLock()
	n := b.keys[q.Key]
	if n == nil || now >= n.until || tried && n.reason == access.CloseEvicted || !n.means(q) {
		b.mu.RUnlock()
		return d, false, false
	}
	row := n.row
	b.mu.RUnlock()
	if row != nil {
		return *row, true, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.row != nil {
		return *n.row, true, true
	}
	d = first(n)
	n.row = &d
	return d, false, true
}

// sweep forgets what is over.
func (b *bars) sweep(now instant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, n := range b.keys {
		if now >= n.until && now >= n.keep {
			delete(b.keys, k)
		}
	}
}
