package edge

import (
	"crypto/subtle"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// shardCount spreads sessions over locks; keys are hashes, so their first byte does.
const shardCount = 64

// instant is a time on the edge's monotonic clock, in nanoseconds since its start.
type instant int64

func (t instant) add(d time.Duration) instant   { return t + instant(d) }
func (t instant) since(o instant) time.Duration { return time.Duration(t - o) }

// session is a viewer on a stream, as this edge knows it. What is not atomic and
// not said otherwise never changes.
type session struct {
	key access.Key
	// trail is zero where the session is found by its key alone; guarded by the lock of the key's shard.
	trail  access.Key
	stream unique.Handle[string]
	ua     unique.Handle[string]
	prefix netip.Addr
	device string // the id that the viewer brought, "" if none
	token  string
	// opening is path and query of the opening, which re-decisions are asked with, and its caller's own
	// id, one behind the other: there are very many sessions.
	opening           string
	node              unique.Handle[string]
	pathEnd, queryEnd uint16 // both have their caps
	rechecks          bool   // the caller asks again by itself, seldom
	publishes         bool   // its caller asked for somebody who sends the stream
	// doubted says that it was zapped because its device was believed to have left it.
	doubted atomic.Bool
	// kept says that the file beside the edge has its grant. What is added to a session belongs into
	// kept.go too.
	kept atomic.Bool
	born instant

	silence  atomic.Int64 // a duration: how long it may show no life
	grant    atomic.Pointer[grant]
	lastSign atomic.Int64 // instant
	asked    atomic.Int64 // instant of the last question
	requests atomic.Int64
	zapped   atomic.Int64 // instant, 0 if not
	// rival is the key of the session that the device zapped to, nil while not known.
	rival atomic.Pointer[access.Key]
	said  atomic.Pointer[said] // by its node, otherwise than by asking; nil if nothing

	// reported is the last sign that a worker knows of, and renewed when it was told:
	// the sweeper's own.
	reported, renewed instant

	// part is the part of the archive that it was let into last, nil if none.
	part atomic.Pointer[part]

	// newer and older hold the sessions of one trail together, under the trail's lock.
	newer, older *session
}

// grant is what a worker (or a fail mode) gave, immutable.
type grant struct {
	session  uuid.UUID // Nil if it holds no seat
	decision uuid.UUID
	reason   access.Reason
	realm    string
	user     string
	name     string
	stream   string // the stream's own name where the viewer asked by an alias, else ""
	limit    int32  // sessions of the user at once, 0 if not said
	revision int64
	until    instant // answers from memory are given till then
	// confirmed is when a worker said so last; grace counts from there.
	confirmed   instant
	unaccounted bool
	// reach is how far into the archive questions are answered from memory, nil for all of it.
	reach *access.Reach
}

// open sets what a new session was opened by: one copy of all of it.
func (s *session) open(path, query, caller, token string) {
	s.opening = strings.Join([]string{path, query, caller}, "") // + would keep the header block where others are empty
	s.pathEnd = uint16(len(path))
	s.queryEnd = s.pathEnd + uint16(len(query))
	if at := strings.Index(s.query(), token); at >= 0 {
		s.token = s.query()[at : at+len(token)]
	} else {
		s.token = strings.Clone(token)
	}
}

func (s *session) path() string  { return s.opening[:s.pathEnd] }
func (s *session) query() string { return s.opening[s.pathEnd:s.queryEnd] }

// caller is the caller's own id, "" where it has none or its node has no control API.
func (s *session) caller() string { return s.opening[s.queryEnd:] }

// fits says whether the question is of this session: the same stream, the same token or
// none, and the same device. All else under the same key is somebody else.
func (s *session) fits(q *question) bool {
	if s.stream.Value() != q.Stream || s.device != q.Device || s.publishes == q.plays() {
		return false
	}
	// A caller that asks again about its own session vouches for it: the viewer may have moved.
	if s.device == "" && !q.Update && (s.prefix != q.prefix || s.ua.Value() != q.UserAgent) {
		return false
	}
	return q.Token == "" || subtle.ConstantTimeCompare([]byte(s.token), []byte(q.Token)) == 1
}

// moved says that the session's device, which is known by an id of its own, asks from elsewhere: its
// segments without a token come from there too from now on.
func (s *session) moved(q *question) bool {
	return s.device != "" && q.Token != "" && q.CallerSession == "" && !q.node.ByToken && s.prefix != q.prefix
}

// fresh says whether the session's lease lasts, so that it may be answered from memory.
func (s *session) fresh(now instant) bool {
	return s.zapped.Load() == 0 && now < s.grant.Load().until
}

// sign notes a sign of life.
func (s *session) sign(now instant) {
	s.lastSign.Store(int64(now))
	s.asked.Store(int64(now))
	s.requests.Add(1)
}

// answer is what the session is told from memory: its lease is what is left of it, or of the
// tolerance where it was zapped.
func (s *session) answer(now instant) access.Decision {
	g := s.grant.Load()
	left := g.until.since(now)
	if z := s.zapped.Load(); z != 0 {
		left = min(left, instant(z).add(s.trails()).since(now))
	}
	return access.Decision{
		ID: g.decision, Outcome: access.Allow, Reason: g.reason, Realm: g.realm, User: g.user,
		SessionName: g.name, Session: g.session, Revision: g.revision, Unaccounted: g.unaccounted,
		MaxSessions: int(g.limit), Lease: max(left, time.Second), Reach: g.reach,
	}
}

// table holds the sessions that this edge knows. A lookup takes one read lock of
// one of its shards.
type table struct {
	limit  int64
	count  atomic.Int64
	shards [shardCount]shard
	trails [shardCount]trailShard
	// gone is told of each key that holds nothing any more, nil if nobody is. It is called
	// under a shard's lock.
	gone func(access.Key)
}

// shard guards its map. Its lock may be held when a trail's lock is taken, never
// the other way round.
type shard struct {
	mu       sync.RWMutex
	sessions map[access.Key]*session
	_        [32]byte // a cache line of its own
}

// trailShard guards its map (the newest session of each trail) and the links between
// the sessions of a trail.
type trailShard struct {
	mu     sync.RWMutex
	newest map[access.Key]*session
	_      [32]byte
}

func newTable(limit int) *table {
	t := &table{limit: int64(limit)}
	for i := range shardCount {
		t.shards[i].sessions = make(map[access.Key]*session)
		t.trails[i].newest = make(map[access.Key]*session)
	}
	return t
}

func (t *table) shard(k access.Key) *shard      { return &t.shards[k[0]%shardCount] }
func (t *table) trail(k access.Key) *trailShard { return &t.trails[k[0]%shardCount] }

// get finds the session under a key, nil if there is none.
func (t *table) get(k access.Key) *session {
	sh := t.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.sessions[k]
}

// follow finds the newest session of a trail, of the token if one is given.
func (t *table) follow(k access.Key, token string) *session {
	tr := t.trail(k)
	tr.mu.RLock()
	defer tr.mu.RUnlock()
	s := tr.newest[k]
	for s != nil && token != "" && s.token != token {
		s = s.older
	}
	return s
}

// put adds a session in place of what its key held. A full table takes no new
// keys: their questions are asked each time.
func (t *table) put(s *session) bool {
	sh := t.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old := sh.sessions[s.key]
	if old == nil && t.count.Add(1) > t.limit {
		t.count.Add(-1)
		return false
	}
	if old != nil {
		t.unlink(old)
	}
	sh.sessions[s.key] = s
	t.link(s)
	return true
}

// remove drops the session, if it is still what its key holds.
func (t *table) remove(s *session) bool {
	sh := t.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.sessions[s.key] != s {
		return false
	}
	delete(sh.sessions, s.key)
	t.count.Add(-1)
	t.unlink(s)
	if t.gone != nil {
		t.gone(s.key)
	}
	return true
}

// move has the session found by another trail.
func (t *table) move(s *session, trail access.Key) {
	sh := t.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.sessions[s.key] != s || s.trail == trail {
		return
	}
	t.unlink(s)
	s.trail = trail
	t.link(s)
}

// each calls f for every session, a shard at a time; f runs without a lock.
func (t *table) each(f func(*session)) {
	var list []*session
	for i := range t.shards {
		sh := &t.shards[i]
		list = list[:0]
		sh.mu.RLock()
		for _, s := range sh.sessions {
			list = append(list, s)
		}
		sh.mu.RUnlock()
		for _, s := range list {
			f(s)
		}
	}
}

func (t *table) link(s *session) {
	if s.trail.IsZero() {
		return
	}
	tr := t.trail(s.trail)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if old := tr.newest[s.trail]; old != nil {
		s.older, old.newer = old, s
	}
	tr.newest[s.trail] = s
}

func (t *table) unlink(s *session) {
	if s.trail.IsZero() {
		return
	}
	tr := t.trail(s.trail)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case s.newer != nil:
		s.newer.older = s.older
	case s.older != nil:
		tr.newest[s.trail] = s.older
	default:
		delete(tr.newest, s.trail)
	}
	if s.older != nil {
		s.older.newer = s.newer
	}
	s.newer, s.older = nil, nil
}
