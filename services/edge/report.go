package edge

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

const (
	// openedOff is how much the node's opening of a session may lie before ours.
	openedOff = 10 * time.Second
	// maxStrangers bounds the sessions that are asked about by their keys in one round.
	maxStrangers = 16384
)

// report is what a streaming server says of one of its sessions otherwise than by asking.
// Told twice, late or out of order it changes nothing twice.
type report struct {
	node *caller.Node
	id   string // the caller's own session id
	// What it says of the viewer, "" and the zero Addr if nothing.
	stream, token, user, userAgent string
	ip                             netip.Addr
	at                             instant   // when it was so
	opened                         time.Time // by the node's clock, zero if not said
	ended                          bool
	reason                         string // the node's own word for why, cleaned and capped
	// Totals since the node opened the session, never increments; country by ISO 3166, or "".
	bytes   int64
	playing time.Duration
	country string
	// late is how much earlier than by our clock `at` may be: life shown so shortly after an end
	// does not speak against it.
	late time.Duration
}

// once says that the id is one that never comes again, so that no other session can have it.
func (r *report) once() bool { return once(r.id) }

func once(id string) bool {
	_, err := uuid.Parse(id)
	return err == nil
}

// said is what its node has told of a session so far, immutable.
type said struct {
	bytes   int64
	playing time.Duration
	country string
	reason  string
	ended   instant // 0 if it was not told
}

// listed is what a node has said that spoke of a session and told nothing of it.
var listed said

// tell takes over what a report says of the session: totals only rise.
func (s *session) tell(r *report) {
	for {
		old := s.said.Load()
		n := said{}
		if old != nil {
			n = *old
		}
		n.bytes, n.playing = max(n.bytes, r.bytes), max(n.playing, r.playing)
		if n.country == "" {
			n.country = shared(r.country)
		}
		if r.ended && (n.ended == 0 || r.at < n.ended) {
			n.ended, n.reason = r.at, shared(r.reason)
		}
		p := &n
		if n == (said{}) {
			p = &listed // most nodes say no more of most sessions
		}
		if old != nil && n == *old || s.said.CompareAndSwap(old, p) {
			return
		}
	}
}

// heard takes in what a node says: a running session shows life, or it has ended and gives its
// seat back. Of a session that this edge does not know, workers are asked by its key.
func (s *Service) heard(_ context.Context, r report) {
	now := s.now()
	r.at = min(r.at, now)
	k := s.keyer.Key("caller session", r.node.Name, r.id)
	ses := s.table.get(k)
	switch {
	case ses == nil:
		s.stranger(k, &r)
	case !r.means(ses, now):
		// It had the id before this one.
		s.metrics.reported(&r, "stale")
		if r.ended {
			s.closings.add(sign{key: k, of: &r, at: r.at, close: access.CloseStopped})
		}
	case r.ended:
		s.stopped(ses, &r)
	default:
		ses.tell(&r)
		ses.alive(r.at)
		s.metrics.reported(&r, "alive")
	}
}

// means says whether the report is about this session: ids of some callers come again when
// their server restarts.
func (r *report) means(ses *session, now instant) bool {
	switch {
	case r.once():
		return true
	case r.stream != "" && r.stream != ses.stream.Value(), r.at < ses.born:
		return false
	}
	return r.opened.IsZero() || time.Since(r.opened) <= now.since(ses.born)+openedOff
}

// stopped ends a session at its node's word, unless it has shown life since.
func (s *Service) stopped(ses *session, r *report) {
	last := instant(ses.lastSign.Load())
	if last > r.at.add(r.late) {
		ses.tell(&report{bytes: r.bytes, playing: r.playing, country: r.country})
		s.metrics.reported(r, "overtaken")
		return
	}
	ses.tell(r)
	if !s.table.remove(ses) {
		return // by another one, a moment ago
	}
	s.metrics.reported(r, "stopped")
	if id := ses.grant.Load().session; id != uuid.Nil {
		s.closings.add(sign{ses: ses, id: id, at: max(r.at, last), close: access.CloseStopped})
	}
}

// alive notes a sign of life that was told: it may be older than what we know.
func (s *session) alive(at instant) {
	for {
		last := s.lastSign.Load()
		if int64(at) <= last || s.lastSign.CompareAndSwap(last, int64(at)) {
			return
		}
	}
}

// stranger has workers look for a session that is not known here: it was opened at another
// edge, or before this one was restarted. Ends are kept until they are told; signs of life come again.
func (s *Service) stranger(k access.Key, r *report) {
	s.metrics.reported(r, "by_key")
	if r.ended {
		s.closings.add(sign{key: k, of: r, at: r.at, close: access.CloseStopped})
		return
	}
	s.closings.renew(sign{key: k, of: r, at: r.at})
}

// found acts on a worker's word about a session that it looked for: one that is over already gets
// what its node says of it, and one that plays without a seat never asked.
func (s *Service) found(g sign, e *usherv1.SeatEnd) {
	id := idOf(e.GetSessionId())
	if p := s.pollers.of(g.of.node.Name); p != nil && !g.of.ended {
		p.seatless(g.of, g.key, access.CloseReason(e.GetReason()))
	}
	switch {
	case id != uuid.Nil:
		s.complete(id, g.of.node.Name, g.of.said())
	case g.of.ended:
		s.metrics.reported(g.of, "unknown")
	default:
		s.metrics.reported(g.of, "unasked")
	}
}

func (r *report) said() *said {
	n := &said{bytes: r.bytes, playing: r.playing, country: r.country}
	if r.ended {
		n.ended, n.reason = r.at, r.reason
	}
	return n
}

// complete reports what a node said of a session that is over, for its row.
func (s *Service) complete(id uuid.UUID, node string, n *said) {
	if n == nil || *n == (said{}) {
		return
	}
	t := &usherv1.SessionTotals{
		SessionId: id[:], Node: node, Bytes: n.bytes, PlayingMs: n.playing.Milliseconds(),
		Country: n.country, Detail: n.reason,
	}
	if n.ended != 0 {
		t.EndedUnixMs = time.Now().Add(-s.now().since(n.ended)).UnixMilli() + s.clockOffset.Load()
	}
	// The id says what it tells, so that a repetition stores nothing and a later word comes through.
	name := id.String() + ":totals"
	for _, v := range []int64{t.GetBytes(), t.GetPlayingMs(), int64(n.ended)} {
		name += ":" + strconv.FormatInt(v, 36)
	}
	s.journal.add(&usherv1.JournalEntry{Id: name, What: &usherv1.JournalEntry_Totals{Totals: t}})
}

// reported counts a report by what came of it.
func (m *metrics) reported(r *report, result string) {
	m.reports.WithLabelValues(r.node.Caller, result).Inc()
}

// message asks for a session by its key.
func (r *report) message(g *sign, now instant) *usherv1.SeatSign {
	m := &usherv1.SeatSign{
		SessionKey: g.key[:], AgeMs: now.since(g.at).Milliseconds(), Close: r.ended, Reason: string(g.close),
		Bytes: r.bytes, Node: r.node.Name, IdsReturn: !r.once(),
	}
	if !r.opened.IsZero() {
		m.OpenedAgeMs = max(time.Since(r.opened).Milliseconds(), 1)
	}
	return m
}
