package edge

import (
	"time"

	"usher.internal/libs/access"
)

// part is a part of the archive that a session was let into: its segments are known by that.
// Immutable.
type part struct{ from, to, since int64 }

// longestPart is how long a session may play on what was within its depth when it began.
const longestPart = 24 * time.Hour

// recall says in the question since when the part that it asks for is played.
func (s *session) recall(q *question) {
	p := s.part.Load()
	if p == nil || q.Archive.Kind == access.Live || q.Archive.Kind == access.Unknown {
		return
	}
	from, to := q.Archive.Span(q.asked)
	if from >= p.from && to <= p.to && q.asked.Unix()-p.since < int64(longestPart/time.Second) {
		q.Archive.Since = p.since
	}
}

// opens says whether what the question asks for may be had by what this session was granted: the
// live stream, or a part of the archive within the viewer's reach. A part that he was let into
// before does not leave his depth while he plays it. All else is for a worker to judge.
func (s *session) opens(q *question) bool {
	if q.Archive.Kind == access.Live {
		return true
	}
	if _, ok := s.grant.Load().reach.Opens(q.Archive, q.asked); !ok {
		return false
	}
	s.enter(q)
	return true
}

// enter notes the part that the viewer was let into. Segments are inside it already, or are asked
// for by a player that knows them from elsewhere: they are no part of their own.
func (s *session) enter(q *question) {
	switch q.Archive.Kind {
	case access.Live, access.Unknown, access.Piece:
		return
	}
	if q.Archive.Since != 0 {
		return
	}
	from, to := q.Archive.Span(q.asked)
	s.part.Store(&part{from: from, to: to, since: q.asked.Unix()})
}
