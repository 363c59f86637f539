package edge

import (
	"time"

	"usher.internal/libs/access"
)

const (
	// tolerance is how long the last requests of a zapped session are still answered.
	tolerance = 20 * time.Second
	// doubt is how long they are answered at most while it is not clear which of the two
	// streams the device has left: a player that zaps back within the tolerance looks at first
	// like one that never left.
	doubt = 40 * time.Second
	// continuous is the longest gap between two requests of one that is still playing: longer
	// than a segment, or two reloads of a playlist.
	continuous = 15 * time.Second
	// left is the silence after which the device has left a stream.
	left = 12 * time.Second
	// maxHops bounds the way along streams that were zapped through.
	maxHops = 8
)

// zapState is what a question on a zapped session means.
type zapState int

const (
	trails   zapState = iota // the last requests of a stream that the device leaves
	cameBack                 // the device left it and is back: it zaps the other one
	playsOn                  // it plays both: one seat more, and no courtesy for a while
)

// remembers says whether the session is answered from memory: its lease lasts, or it was
// zapped and its last requests are tolerated.
func (s *Service) remembers(ses *session, now instant) bool {
	return ses.fresh(now) || ses.zapped.Load() != 0 && s.zap(ses, now) == trails
}

// zap tells what a question on a zapped session means, from when this stream and the one
// that the device went to showed life last.
func (s *Service) zap(ses *session, now instant) zapState {
	since := now.since(instant(ses.zapped.Load()))
	if ses.rechecks {
		// Its caller asks about sessions that it still serves, and too seldom to tell more.
		if since < tolerance {
			return trails
		}
		return playsOn
	}
	switch {
	case now.since(instant(ses.lastSign.Load())) >= continuous:
		return cameBack
	case since < tolerance:
		return trails
	}
	rival := s.rival(ses)
	switch {
	case rival == nil:
		return playsOn // it plays at another edge, or nobody knows where
	case now.since(instant(rival.lastSign.Load())) >= left:
		return cameBack
	case since < doubt:
		return trails
	}
	return playsOn
}

// rival is where the device is now: at the end of the streams that it zapped through since.
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

// setRival notes where the device of a zapped session went.
func (s *Service) setRival(k access.Key, by []byte) {
	if ses := s.table.get(k); ses != nil && len(by) == len(access.Key{}) {
		rival := access.Key(by)
		ses.rival.CompareAndSwap(nil, &rival)
	}
}
