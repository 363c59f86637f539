package edge

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"time"
	"unique"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/keep"
)

// wall ties the edge's monotonic clock, which ends with the process, to the time of day.
type wall struct {
	now instant
	at  time.Time
}

func (s *Service) wall() wall { return wall{s.now(), time.Now()} }

// ms is the time of day of an instant; 0, which stands for never, stays 0.
func (w wall) ms(t instant) int64 {
	if t == 0 {
		return 0
	}
	return w.at.Add(t.since(w.now)).UnixMilli()
}

// instant is the opposite of ms.
func (w wall) instant(ms int64) instant {
	if ms == 0 {
		return 0
	}
	if t := w.now.add(time.UnixMilli(ms).Sub(w.at)); t != 0 {
		return t
	}
	return -1
}

// message is the session as it is kept.
func (s *session) message(w wall) *usherv1.KeptSession {
	g := s.grant.Load()
	m := &usherv1.KeptSession{
		AtUnixMs: w.at.UnixMilli(), Stream: s.stream.Value(), UserAgent: s.ua.Value(),
		Device: s.device, Token: s.token, Path: s.path(), Query: s.query(), CallerSession: s.caller(), Node: s.node.Value(), Rechecks: s.rechecks, Publishes: s.publishes,
		SilenceMs: time.Duration(s.silence.Load()).Milliseconds(), BornUnixMs: w.ms(s.born),
		Requests: s.requests.Load(), AskedUnixMs: w.ms(instant(s.asked.Load())),
		Grant: &usherv1.KeptGrant{
			SessionId: g.session[:], DecisionId: g.decision[:], Reason: string(g.reason), Realm: g.realm, User: g.user,
			Name: g.name, Stream: g.stream, Limit: g.limit, Revision: g.revision,
			UntilUnixMs: w.ms(g.until), ConfirmedUnixMs: w.ms(g.confirmed), Unaccounted: g.unaccounted, Archive: g.reach.String(),
		},
	}
	if !s.trail.IsZero() {
		m.Trail = s.trail[:]
	}
	m.Prefix, _ = s.prefix.MarshalBinary() // never fails
	return m
}

// restored is the session of before the restart. The lease is what is left of it by the time of day, and
// never more than when it was written: a clock that was set back must not prolong it.
func restored(k access.Key, m *usherv1.KeptSession, w wall) *session {
	kg := m.GetGrant()
	g := &grant{
		session: idOf(kg.GetSessionId()), decision: idOf(kg.GetDecisionId()), reason: access.Reason(kg.GetReason()),
		realm: shared(kg.GetRealm()), user: kg.GetUser(), name: kg.GetName(), stream: kg.GetStream(), limit: kg.GetLimit(), revision: kg.GetRevision(),
		until: w.instant(kg.GetUntilUnixMs()), confirmed: min(w.instant(kg.GetConfirmedUnixMs()), w.now), unaccounted: kg.GetUnaccounted(),
	}
	var err error
	if g.reach, err = access.ParseReach(kg.GetArchive()); err != nil {
		g.reach = access.None() // a worker is asked
	}
	if w.at.UnixMilli() < m.GetAtUnixMs() {
		g.until = min(g.until, w.now)
	}
	n := &session{
		key: k, stream: unique.Make(m.GetStream()), ua: unique.Make(m.GetUserAgent()), device: m.GetDevice(),
		node: unique.Make(m.GetNode()), rechecks: m.GetRechecks(), publishes: m.GetPublishes(),
		born: min(w.instant(m.GetBornUnixMs()), w.now), reported: w.now, renewed: w.now,
	}
	n.open(m.GetPath(), m.GetQuery(), m.GetCallerSession(), m.GetToken())
	n.asked.Store(int64(min(w.instant(m.GetAskedUnixMs()), w.now)))
	if len(m.GetTrail()) == len(n.trail) {
		n.trail = access.Key(m.GetTrail())
	}
	if ip, ok := netip.AddrFromSlice(m.GetPrefix()); ok {
		n.prefix = ip
	}
	n.silence.Store(int64(time.Duration(m.GetSilenceMs()) * time.Millisecond))
	n.grant.Store(g)
	n.lastSign.Store(int64(w.now))
	n.requests.Store(m.GetRequests())
	n.kept.Store(true)
	return n
}

// recall takes up what the file holds, before anything else begins.
func (s *Service) recall(ctx context.Context) error {
	store := s.keeper.store
	if store == nil {
		return nil
	}
	w := s.wall()
	var away time.Duration // since the edge was last alive
	unread, err := store.Each(keep.Life, func(_, v []byte) {
		if len(v) == 8 {
			away = max(w.at.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(v)))), 0)
		}
	})
	if err == nil {
		unread, err = s.recallPolicy(ctx, unread)
	}
	if err == nil {
		unread, err = s.recallOrders(w, unread)
	}
	count := 0
	if err == nil {
		unread, count, err = s.recallSessions(w, away, unread)
	}
	if err != nil {
		return err
	}
	if unread > 0 {
		s.log.ErrorContext(ctx, "some of what the file beside the edge held cannot be read: was it written under another cluster key?",
			slog.Int(telemetry.Count, unread))
	}
	s.recalled.Store(s.view.Load() != nil)
	s.log.InfoContext(ctx, "sessions of before the restart go on", slog.Int(telemetry.Count, count), slog.Duration(telemetry.Age, away))
	return nil
}

func (s *Service) recallPolicy(ctx context.Context, unread int) (int, error) {
	lost, err := s.keeper.store.Each(keep.Policy, func(_, v []byte) {
		p := new(usherv1.Projection)
		if proto.Unmarshal(v, p) == nil && s.usePolicy(ctx, p) {
			s.log.InfoContext(ctx, "policy of before the restart in force, until one arrives", slog.Int64(telemetry.Revision, p.GetRevision()))
		}
	})
	return unread + lost, err
}

// recallOrders takes in what still holds, and removes the rest.
func (s *Service) recallOrders(w wall, unread int) (int, error) {
	var over []keep.Change
	lost, err := s.keeper.store.Each(keep.Orders, func(k, v []byte) {
		m := new(usherv1.Control)
		if proto.Unmarshal(v, m) != nil || outdated(m, w.at) {
			over = append(over, keep.Change{Bucket: keep.Orders, Key: k})
			return
		}
		s.control(m)
	})
	if err == nil {
		err = s.keeper.write(over)
	}
	s.keeper.take() // control has noted them anew
	return unread + lost, err
}

// outdated says whether a kept order does nothing any more.
func outdated(m *usherv1.Control, now time.Time) bool {
	age := now.UnixMilli() - m.GetAtUnixMs()
	switch d := m.GetDirective(); {
	case d == nil:
		return age > m.GetBarMs()+tombstone.Milliseconds()
	case d.GetRevoked():
		return age > (48 * time.Hour).Milliseconds()
	default:
		return d.GetUntilUnixMs() != 0 && now.UnixMilli() > d.GetUntilUnixMs()
	}
}

// recallSessions takes up sessions, but for those whose silence was over before the edge came back.
func (s *Service) recallSessions(w wall, away time.Duration, unread int) (lost, count int, err error) {
	var over []keep.Change
	bad, err := s.keeper.store.Each(keep.Sessions, func(k, v []byte) {
		m := new(usherv1.KeptSession)
		if len(k) != len(access.Key{}) || proto.Unmarshal(v, m) != nil || away.Milliseconds() >= m.GetSilenceMs() {
			over = append(over, keep.Change{Bucket: keep.Sessions, Key: k})
			return
		}
		key := access.Key(k)
		ses := restored(key, m, w)
		if _, barred := s.bars.ended(key, ses.grant.Load().session); barred {
			over = append(over, keep.Change{Bucket: keep.Sessions, Key: k})
			return
		}
		if s.table.put(ses) {
			count++
		}
	})
	if err == nil {
		err = s.keeper.write(over)
	}
	return unread + bad, count, err
}

// settle has the questions of the first second after a restart wait until all that was ended
// meanwhile is known. An edge that is cut off goes on without.
func (s *Service) settle(deadline time.Time) {
	if !s.recalled.Load() || s.lastTick.Load() != 0 {
		return
	}
	d := min(settleTime-s.now().since(s.began), time.Until(deadline)/2)
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.ticked:
	case <-t.C:
	}
}
