package edge

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// cutOff is how long an edge may miss the tick before it counts as cut off: a kill
// would not reach it then, whatever the connection says.
const cutOff = 3 * time.Second

// Feed brings what is spread to all edges. Both calls block until ctx ends, and
// survive the loss of the connection.
type Feed interface {
	// WatchProjection gives the edge's part of the policy, now and whenever it changes.
	WatchProjection(ctx context.Context, edge string, f func(*usherv1.Projection)) error
	// FollowControl gives every control message, perhaps twice, and a tick once all
	// up to its sequence were given.
	FollowControl(ctx context.Context, f func(seq uint64, m *usherv1.Control), onTick func(last uint64, at time.Time)) error
}

var (
	errNoTick  = errors.New("no tick of the control stream has come yet: kills would not arrive")
	errNoView  = errors.New("the policy has not arrived yet")
	errDrained = errors.New("stopping")
)

// followPolicy takes in revisions of the policy until ctx ends.
func (s *Service) followPolicy(ctx context.Context) error {
	return s.feed.WatchProjection(ctx, s.cfg.Name, func(p *usherv1.Projection) {
		if !s.usePolicy(ctx, p) {
			return
		}
		s.log.InfoContext(ctx, "policy in force", slog.Int64(telemetry.Revision, p.GetRevision()), slog.Int(telemetry.Count, len(p.GetNodes())))
		s.keeper.projection(p)
	})
}

// usePolicy puts the edge's part of a policy in force; false if it cannot be used.
func (s *Service) usePolicy(ctx context.Context, p *usherv1.Projection) bool {
	v, err := compile(p, s.adapters)
	if err != nil {
		s.log.ErrorContext(ctx, "policy cannot be used, the one before stays in force",
			slog.Int64(telemetry.Revision, p.GetRevision()), slog.Any(telemetry.Error, err))
		return false
	}
	if old := s.view.Swap(v); old == nil {
		close(s.viewed)
	} else {
		s.rejudge(old, v)
	}
	s.pollers.changed()
	s.metrics.revision.WithLabelValues().Set(float64(v.revision))
	return true
}

// followControl takes in kills, evictions, zaps, bans and overrides until ctx ends.
func (s *Service) followControl(ctx context.Context) error {
	return s.feed.FollowControl(ctx,
		func(_ uint64, m *usherv1.Control) { s.control(m) },
		func(uint64, time.Time) {
			if s.lastTick.Swap(int64(s.now())) == 0 {
				close(s.ticked)
			}
		})
}

// control applies one message. Applying it twice changes nothing.
func (s *Service) control(m *usherv1.Control) {
	if m.GetDirective() != nil {
		s.direct(m)
		return
	}
	reason, ok := endOf(m)
	if !ok || len(m.GetSessionKey()) != len(access.Key{}) {
		return
	}
	k, id := access.Key(m.GetSessionKey()), idOf(m.GetSessionId())
	now := s.now()
	// The control stream keeps messages: what is left of an old one's bar may be nothing.
	age := max(time.Now().UnixMilli()+s.clockOffset.Load()-m.GetAtUnixMs(), 0)
	left := time.Duration(m.GetBarMs()-age) * time.Millisecond
	if left > 0 || time.Duration(age)*time.Millisecond < tombstone {
		s.bars.put(k, &bar{
			session: id, reason: reason, realm: m.GetRealm(), user: m.GetUser(), stream: m.GetStream(), device: m.GetDevice(),
			until: now.add(max(left, 0)), keep: now.add(tombstone),
		})
		if left > 0 {
			s.keeper.order(m)
		}
	}
	if p := s.pollers.of(m.GetNode()); p != nil && forced(reason) && s.table.get(k) == nil {
		nudge(p.wake) // it may play there without being known here: its list tells
	}
	s.end(k, id, reason, now)
	if reason == access.CloseZapped {
		s.setRival(k, m.GetByKey(), m.GetByBelief())
	}
}

// end ends the session under a key, if it is still the one that is meant: it is
// dropped, or after a zap tolerated for a while.
func (s *Service) end(k access.Key, id uuid.UUID, reason access.CloseReason, now instant) {
	ses := s.table.get(k)
	if ses == nil || id == uuid.Nil || ses.grant.Load().session != id {
		return
	}
	if reason == access.CloseZapped {
		ses.zapped.CompareAndSwap(0, int64(now))
		s.keeper.forget(k) // its last requests are not worth a file's memory
		return
	}
	if reason == access.CloseBanned || reason == access.CloseOverridden {
		s.accuse(ses)
	}
	if s.table.remove(ses) {
		s.complete(id, ses.node.Value(), ses.said.Load())
		if forced(reason) {
			s.expel(ses, reason)
		}
	}
}

// endOf reads what a message does; kinds of a newer version do nothing here.
func endOf(m *usherv1.Control) (access.CloseReason, bool) {
	switch m.GetKind() {
	case "kill":
		return access.CloseKilled, true
	case "zap":
		return access.CloseZapped, true
	case "evict":
		if r := access.CloseReason(m.GetReason()); r != "" && r != access.CloseZapped {
			return r, true
		}
		return access.CloseEvicted, true
	}
	return "", false
}

// Ready says why no questions should be sent to this edge now, nil if they should. An edge
// that was ready stays so when it is cut off, since it still knows people: taken away from
// its callers it would leave them to their own fail modes. usher_edge_cut_off tells.
func (s *Service) Ready() error {
	switch {
	case s.draining.Load():
		return errDrained
	case s.view.Load() == nil:
		return errNoView
	case s.lastTick.Load() == 0 && !s.recalled.Load():
		return errNoTick
	}
	return nil
}

func (s *Service) cutOff() bool { return s.now().since(instant(s.lastTick.Load())) > cutOff }
