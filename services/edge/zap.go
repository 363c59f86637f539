package edge

import (
	"time"

	"usher.internal/libs/access"
)

const (
	// tolerance is how long the last requests of a zapped session are still answered.
	tolerance = 20 * time.Second
	// continuous is the longest gap between two requests of one that is still playing: longer
	// than a segment, or two reloads of a playlist.
	continuous = 15 * time.Second
	// left is the silence after which the device has left a stream.
	left = 12 * time.Second
	// doubt is how long they are answered at most while it is not clear which of the two streams
	// the device has left: a player that zaps back looks at first like one that never left. It may
	// be back a moment before a gap would show, and what it fetches last of the other stream
	// trails as long as that of the first.
	doubt = tolerance + continuous + tolerance + left
	// maxHops bounds the way along streams that were zapped through.
	maxHops = 8
)

// zapState is what a question on a zapped session means.
type zapState int

const (
	trails   zapState = iota // the last requests of a stream that the device leaves
	cameBack                 // the device left it and is back: it zaps the other one
	believed                 // the same, as far as can be told from here
	playsOn                  // it plays both: one seat more, and no courtesy for a while
)

// remembers says whether the session is answered from memory: its lease lasts, or it was
// zapped and its last requests are tolerated.
func (s *Service) remembers(ses *session, q *question, now instant) bool {
	return ses.fresh(now) || ses.zapped.Load() != 0 && s.zap(ses, q, now) == trails
}

// zap tells what a question on a zapped session means, from when this stream and the one
// that the device went to showed life last. Where that cannot be known it is believed once that
// the device is back: the other stream is zapped so, and when that shows life after it, it was not true.
func (s *Service) zap(ses *session, q *question, now instant) zapState {
	zapped := instant(ses.zapped.Load())
	since := now.since(zapped)
	opened := ses.rechecks && !q.Update // as if there had been none before
	switch {
	case opened || !ses.rechecks && now.since(instant(ses.lastSign.Load())) >= continuous:
		return cameBack
	case since < ses.trails():
		return trails
	case ses.doubted.Load():
		return playsOn
	}
	rival := s.rival(ses)
	switch {
	case rival != nil && rival.rechecks:
		// What its caller asks about too seldom to tell more was played a while ago at most.
		if instant(rival.lastSign.Load()) >= zapped.add(2*lingers) {
			return playsOn
		}
	case ses.rechecks:
		return believed
	case rival != nil && now.since(instant(rival.lastSign.Load())) >= left:
		return cameBack
	case rival != nil && since >= doubt:
		return playsOn
	}
	if !ses.rechecks && since < doubt {
		return trails
	}
	return believed
}

// trails is how long something may be heard of a stream that was left.
func (s *session) trails() time.Duration {
	if s.rechecks {
		return lingers + tolerance
	}
	return tolerance
}

// rival is where the device is now: at the end of the streams that it zapped through since. It is
// nil if that is at another edge.
func (s *Service) rival(ses *session) *session {
	for range maxHops {
		k := ses.rival.Load()
		if k == nil {
			return nil
		}
		if ses = s.table.get(*k); ses == nil || ses.zapped.Load() == 0 {
			return ses
		}
	}
	return nil
}

// setRival notes where the device of a zapped session went, and whether that was only believed.
func (s *Service) setRival(k access.Key, by []byte, doubted bool) {
	ses := s.table.get(k)
	if ses == nil || len(by) != len(access.Key{}) {
		return
	}
	rival := access.Key(by)
	ses.rival.CompareAndSwap(nil, &rival)
	if doubted {
		ses.doubted.Store(true)
	}
}

// over says that nothing more is expected of a zapped session.
func (s *session) over(now instant) bool {
	silence := continuous
	if s.rechecks {
		silence = time.Duration(s.silence.Load()) // its caller may yet ask about it
	}
	return now.since(instant(s.zapped.Load())) >= s.trails() && now.since(instant(s.lastSign.Load())) >= silence
}
