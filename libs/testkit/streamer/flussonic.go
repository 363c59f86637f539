package streamer

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Flussonic is a Flussonic Media Server by its published API (OpenAPI description, SDK, manual).
type Flussonic struct {
	server
	serial   int // of sessions
	events   int
	sessions map[string]*session // by session_keys
}

// state is what the backend said of a session last.
type state int

const (
	establishing state = iota // it was not asked yet
	granted
	denied   // remembered until it is asked again
	finished // closed, of whatever reason
)

// session is one viewer on one stream. The server's lock guards it.
type session struct {
	asking sync.Mutex // held while the backend is asked: one question at a time

	Viewer
	key                 string
	id                  string
	position, number    int // in the list, of the next question
	state               state
	opened, last, until time.Time
	started, updated    time.Time
	location            string
	user                string
	limit               int
	bytes               int64
	live                bool   // it has a connection
	unknown             bool   // the last question was not answered
	reason              string // of its end
	published           bool
}

// NewFlussonic starts one that runs until the test ends.
func NewFlussonic(t testing.TB, o Options) *Flussonic {
	t.Helper()
	f := &Flussonic{sessions: map[string]*session{}}
	f.start(t, o, f.api(), f.Scan)
	return f
}

// segment is what one request of a viewer weighs, rate what a connection takes in a second.
const segment, rate = 500_000, 250_000

// Fetch is one request of a player: a playlist or a segment.
func (f *Flussonic) Fetch(v Viewer) Answer {
	_, a := f.visit(v, false, false)
	return a
}

// Connect begins to play over a connection that lasts: MPEG-TS, RTMP.
func (f *Flussonic) Connect(v Viewer) (*Conn, Answer) {
	if v.Proto == "" {
		v.Proto = "tshttp"
	}
	s, a := f.visit(v, true, false)
	if !a.OK() {
		return nil, a
	}
	return &Conn{close: func() { f.leave(s) }, lasts: func() (bool, string) { return f.lasts(s) }}, a
}

// Publish is Connect of one who sends a stream.
func (f *Flussonic) Publish(v Viewer) (*Conn, Answer) {
	s, a := f.visit(v, true, true)
	if !a.OK() {
		return nil, a
	}
	return &Conn{close: func() { f.leave(s) }, lasts: func() (bool, string) { return f.lasts(s) }}, a
}

// Conn is a connection of a viewer.
type Conn struct {
	close func()
	lasts func() (bool, string)
}

// Close is the viewer leaving.
func (c *Conn) Close() { c.close() }

// Lasts says whether the server still serves it.
func (c *Conn) Lasts() bool {
	ok, _ := c.lasts()
	return ok
}

// Reason says why the server has ended it: "" where it has not, or was killed.
func (c *Conn) Reason() string {
	_, reason := c.lasts()
	return reason
}

// visit finds or opens the viewer's session and asks about it where its answer has run out.
func (f *Flussonic) visit(v Viewer, live, published bool) (*session, Answer) {
	if v.Proto == "" {
		v.Proto = "hls"
	}
	f.mu.Lock()
	if f.away() {
		f.mu.Unlock()
		return nil, Answer{}
	}
	if f.opts.Streams != nil && !slices.Contains(f.opts.Streams, v.Stream) {
		f.mu.Unlock()
		return nil, Answer{Status: http.StatusNotFound}
	}
	boot, s := f.boot, f.open(v, published)
	f.mu.Unlock()

	asked := f.verify(s)

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.boot != boot {
		return nil, Answer{} // it was killed meanwhile
	}
	a := Answer{Session: s.id, Asked: asked, Unknown: asked && s.unknown}
	switch {
	case s.state == granted:
		a.Status = http.StatusOK
		s.bytes += segment
		s.live = s.live || live
	case s.location != "":
		a.Status, a.Location = http.StatusFound, s.location
	default:
		a.Status = http.StatusForbidden
	}
	return s, a
}

// open finds the session of the viewer or makes one. The caller holds mu.
func (f *Flussonic) open(v Viewer, published bool) *session {
	now := f.now()
	key := f.key(v, published)
	if s := f.sessions[key]; s != nil {
		s.last = now
		return s
	}
	f.serial++
	s := &session{Viewer: v, key: key, id: uuid.NewString(), position: f.serial, opened: now, last: now, published: published}
	f.sessions[key] = s
	f.tell("play_opened", s, now, "")
	return s
}

func (f *Flussonic) key(v Viewer, published bool) string {
	query, _ := url.ParseQuery(v.Query)
	parts := make([]string, 0, len(f.opts.Keys)+1)
	for _, k := range f.opts.Keys {
		switch k {
		case "name":
			parts = append(parts, v.Stream)
		case "ip":
			parts = append(parts, v.IP)
		case "proto":
			parts = append(parts, v.Proto)
		case "token":
			parts = append(parts, v.Token)
		default:
			parts = append(parts, query.Get(k))
		}
	}
	if published {
		parts = append(parts, "publish")
	}
	return strings.Join(parts, "\x1f")
}

// leave is a connection that its viewer closes.
func (f *Flussonic) leave(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.live = false
	f.end(s, "disconnect")
}

func (f *Flussonic) lasts(s *session) (bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.away() && s.state == granted && s.live, s.reason
}

// end closes a session and forgets it. The caller holds mu.
func (f *Flussonic) end(s *session, reason string) {
	if f.sessions[s.key] == s {
		delete(f.sessions, s.key)
	}
	f.finish(s, reason)
	s.state = finished
}

// finish tells once that a session plays no more. The caller holds mu.
func (f *Flussonic) finish(s *session, reason string) {
	s.live, s.reason = false, reason
	if s.state == granted || s.state == establishing {
		f.tell("play_closed", s, f.now(), reason)
	}
}

// Scan ends what is idle and asks about connections whose answer has run out. It runs by itself
// unless the server was given a clock.
func (f *Flussonic) Scan() {
	f.mu.Lock()
	now := f.now()
	var due []*session
	for _, s := range f.sessions {
		switch {
		case s.state == establishing:
		case s.live && !now.Before(s.until):
			due = append(due, s)
		case s.live:
			s.last = now
		case now.Sub(s.last) >= f.opts.Idle && (s.state == granted || !now.Before(s.until)):
			f.end(s, "idle")
		}
		if s.state == granted && f.opts.Update > 0 && now.Sub(s.updated) >= f.opts.Update {
			s.updated = now
			f.tell("play_updated", s, now, "")
		}
	}
	f.mu.Unlock()
	var asking sync.WaitGroup
	for _, s := range due {
		asking.Go(func() { f.verify(s) })
	}
	asking.Wait()
}

// Playing is the truth: what this server sends somebody now, the oldest first.
func (f *Flussonic) Playing() []Play {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Play
	if f.away() {
		return nil
	}
	now := f.now()
	for _, s := range f.byPosition() {
		if s.state != granted || s.published {
			continue
		}
		p := Play{
			ID: s.id, Stream: s.Stream, Token: s.Token, IP: s.IP, UserAgent: s.UserAgent, User: s.user,
			Opened: s.opened, Last: s.last, Bytes: s.total(now), Connected: s.live,
		}
		if s.live {
			p.Last = now
		}
		all = append(all, p)
	}
	return all
}

// byPosition are all sessions in the order of their opening. The caller holds mu.
func (f *Flussonic) byPosition() []*session {
	all := make([]*session, 0, len(f.sessions))
	for _, s := range f.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return a.position - b.position })
	return all
}

func (s *session) total(now time.Time) int64 {
	if !s.live {
		return s.bytes
	}
	return s.bytes + int64(now.Sub(s.started).Seconds()*rate)
}

// Stop is kill -9: no session is closed towards anybody, nothing is told any more.
func (f *Flussonic) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.boot++
	for _, s := range f.sessions {
		s.state, s.live = finished, false
	}
	f.sessions = map[string]*session{}
	f.sink.forget()
}

// Start is the process coming back, with no memory.
func (f *Flussonic) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = false
}
