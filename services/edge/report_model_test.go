package edge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// seat is a session as the ledger of the model has it, live or over.
type seat struct {
	id             uuid.UUID
	key            access.Key
	node           string
	opened, seen   time.Time
	closed         time.Time // zero while it is live
	reason, detail string
	bytes, playing int64
	closes         int
}

// books are a ledger and a recorder that do what ours do (libs/pgstore: by_key.go, totals.go).
type books struct {
	seats []*seat
	told  int // entries of the journal that were recorded
}

func (b *books) find(f func(*seat) bool) *seat {
	for _, s := range slices.Backward(b.seats) { // the newest first
		if f(s) {
			return s
		}
	}
	return nil
}

func (b *books) close(s *seat, reason string) {
	s.closed, s.reason = time.Now(), reason
	s.closes++
}

func (b *books) decide(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	r := edgetest.Allow(m)
	if s := b.find(func(s *seat) bool { return s.id == uuid.UUID(r.GetSessionId()) && s.closed.IsZero() }); s != nil {
		s.seen = time.Now()
		return r, nil
	}
	if old := b.find(func(s *seat) bool { return s.key == access.Key(m.GetSessionKey()) && s.closed.IsZero() }); old != nil {
		b.close(old, "id_reused")
	}
	id := uuid.New()
	r.SessionId = id[:]
	b.seats = append(b.seats, &seat{id: id, key: access.Key(m.GetSessionKey()), node: m.GetNode(), opened: time.Now(), seen: time.Now()})
	return r, nil
}

func (b *books) signs(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	reply := &usherv1.SeatsReply{Ok: true}
	for i, g := range m.GetSigns() {
		at := time.Now().Add(-time.Duration(g.GetAgeMs()) * time.Millisecond)
		s, place := b.find(func(s *seat) bool { return string(s.id[:]) == string(g.GetSessionId()) }), 0
		if len(g.GetSessionId()) == 0 {
			s, place = b.byKey(g, at), i+1
		}
		if s == nil {
			reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionId: g.GetSessionId(), SessionKey: g.GetSessionKey(), Sign: int32(place)})
			continue
		}
		if s.closed.IsZero() {
			s.bytes = max(s.bytes, g.GetBytes())
			switch {
			case !g.GetClose() && at.After(s.seen):
				s.seen = at
			case g.GetClose() && !s.seen.After(at.Add(500*time.Millisecond)):
				b.close(s, g.GetReason())
			}
		}
		if !s.closed.IsZero() {
			reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionId: s.id[:], SessionKey: g.GetSessionKey(), Sign: int32(place), Reason: s.reason})
		}
	}
	return reply, nil
}

func (b *books) byKey(g *usherv1.SeatSign, at time.Time) *seat {
	latest := time.Now().Add(time.Hour)
	if g.GetIdsReturn() {
		latest = at
		if g.GetOpenedAgeMs() > 0 {
			opened := time.Now().Add(10*time.Second - time.Duration(g.GetOpenedAgeMs())*time.Millisecond)
			latest = time.UnixMilli(min(latest.UnixMilli(), opened.UnixMilli()))
		}
	}
	return b.find(func(s *seat) bool {
		return s.key == access.Key(g.GetSessionKey()) && s.node == g.GetNode() && !s.opened.After(latest)
	})
}

// record takes over what was journaled.
func (b *books) record(all []*usherv1.SessionTotals) {
	for _, n := range all[b.told:] {
		s := b.find(func(s *seat) bool { return s.id == uuid.UUID(n.GetSessionId()) && s.node == n.GetNode() })
		s.bytes, s.playing = max(s.bytes, n.GetBytes()), max(s.playing, n.GetPlayingMs())
		end := time.UnixMilli(n.GetEndedUnixMs())
		timed := s.reason == "idle" || s.reason == "expired" || s.reason == "stopped"
		if n.GetEndedUnixMs() > 0 && timed && end.Before(s.closed) && !end.Before(s.seen.Add(-500*time.Millisecond)) {
			s.closed, s.reason, s.detail = end, "stopped", n.GetDetail()
		} else if s.detail == "" {
			s.detail = n.GetDetail()
		}
	}
	b.told = len(all)
}

// life is a session as it really was, and what of it was delivered.
type life struct {
	node, id, token string
	opened, ended   time.Duration
	seat            *seat
	bytes, playing  int64 // the most that was delivered
	ends            int
}

// act is something that happens at a time.
type act struct {
	at time.Duration
	do func()
}

// TestReportsInAnyOrder: whatever is lost, late, doubled or out of order, and whenever the edge is
// restarted, each session is closed once, by its own end where that was told, with the highest totals
// that were told of it, and never before it really ended.
func TestReportsInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var caught any // rapid ends a run by a panic, which must not leave the bubble
		synctest.Test(t, func(t *testing.T) {
			defer func() { caught = recover() }()
			reportsInAnyOrder(t, rt)
		})
		if caught != nil {
			panic(caught)
		}
	})
}

func reportsInAnyOrder(t *testing.T, rt *rapid.T) {
	b, w := setup(t), &sweeper{}
	w.s = b.Service
	ledger := new(books)
	b.workers.Decide, b.workers.Seats = ledger.decide, ledger.signs
	settle := func() {
		b.round(t, w)
		ledger.record(b.journal.Totals())
	}
	var acts []act
	lives := drawLives(rt)
	for _, l := range lives {
		acts = append(acts, act{l.opened, func() { open(t, b, ledger, l) }})
		acts = append(acts, drawReports(rt, b, l)...)
	}
	restarts := rapid.IntRange(0, 2).Draw(rt, "restarts")
	for range restarts {
		at := drawTime(rt, "restart", 0, 10*time.Minute)
		acts = append(acts, act{at, func() {
			w.round(t.Context(), b.now(), true) // as a stop does
			settle()
			b.table = newTable(1000)
		}})
	}
	slices.SortStableFunc(acts, func(x, y act) int { return int(x.at - y.at) })
	began := time.Now()
	for _, a := range acts {
		time.Sleep(time.Until(began.Add(a.at)))
		a.do()
		if rapid.Bool().Draw(rt, "round") {
			settle()
		}
	}
	settle()
	time.Sleep(7 * time.Hour) // longer than any silence
	settle()
	for _, s := range ledger.seats {
		if s.closed.IsZero() { // nobody renews it: the ledger's own time is over
			ledger.close(s, "expired")
		}
	}
	settle()
	for i, l := range lives {
		l.check(rt, restarts > 0, fmt.Sprintf("session %d (%s of %s)", i, l.id, l.node), began)
	}
	if len(ledger.seats) != len(lives) {
		rt.Fatalf("%d seats for %d sessions", len(ledger.seats), len(lives))
	}
}

func drawTime(rt *rapid.T, what string, from, to time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(int64(from/time.Millisecond), int64(to/time.Millisecond)).Draw(rt, what)) * time.Millisecond
}

// drawLives draws sessions: some of Flussonic, whose ids are new each time, and some of an Astra that gives
// the same one again and again.
func drawLives(rt *rapid.T) []*life {
	var all []*life
	for i := range rapid.IntRange(0, 3).Draw(rt, "of flussonic") {
		opened := drawTime(rt, "opened", 0, 3*time.Minute)
		all = append(all, &life{node: "fl1", id: fmt.Sprintf("0d3c1f5e-0000-4000-8000-%012d", i), token: fmt.Sprint("f", i),
			opened: opened, ended: opened + drawTime(rt, "length", time.Second, 5*time.Minute)})
	}
	next := time.Duration(0)
	for i := range rapid.IntRange(0, 3).Draw(rt, "of astra") {
		opened := next + drawTime(rt, "pause", 12*time.Second, 2*time.Minute)
		next = opened + drawTime(rt, "length", time.Second, 3*time.Minute)
		all = append(all, &life{node: "n1", id: "1001", token: fmt.Sprint("a", i), opened: opened, ended: next})
	}
	return all
}

func open(t *testing.T, b *bench, ledger *books, l *life) {
	r := astraRequest("token=" + l.token)
	if l.node == "fl1" {
		r = flussonicSession("session_id=" + l.id + "&token=" + l.token)
	}
	if res := b.ask(r); res.StatusCode != http.StatusOK {
		t.Errorf("opening: status %d", res.StatusCode)
	}
	l.seat = ledger.seats[len(ledger.seats)-1]
}

// drawReports draws what is delivered of a life: of each event none, one, or more, each late as it likes.
func drawReports(rt *rapid.T, b *bench, l *life) (acts []act) {
	told := []time.Duration{l.ended}
	if l.node == "fl1" {
		for at := l.opened + 10*time.Second; at < l.ended; at += 30 * time.Second {
			told = append(told, at)
		}
	}
	for _, at := range told {
		for range rapid.IntRange(0, 2).Draw(rt, "deliveries") {
			late := drawTime(rt, "late", 0, 6*time.Minute)
			if rapid.Bool().Draw(rt, "prompt") {
				late = time.Millisecond
			}
			acts = append(acts, act{at + late, func() {
				played := at - l.opened
				r := b.says(l.node, l.id, late, playing(played.Milliseconds()))
				r.playing = played
				if r.ended = at == l.ended; r.ended {
					r.reason = l.token
					l.ends++
				}
				if l.node == "n1" {
					r.stream, r.opened = "a001", time.Now().Add(-late-played)
				}
				l.bytes, l.playing = max(l.bytes, r.bytes), max(l.playing, r.playing.Milliseconds())
				b.heard(context.Background(), r)
			}})
		}
	}
	return acts
}

func (l *life) check(rt *rapid.T, restarted bool, what string, began time.Time) {
	s, end := l.seat, began.Add(l.ended)
	if s.closes != 1 {
		rt.Errorf("%s: closed %d times", what, s.closes)
	}
	// An edge that was restarted goes on by key, which carries no duration before the end.
	if s.bytes != l.bytes || s.playing != l.playing && (l.ends > 0 || !restarted) {
		rt.Errorf("%s: %d bytes in %d ms, want %d in %d", what, s.bytes, s.playing, l.bytes, l.playing)
	}
	switch {
	case l.ends == 0:
		if s.reason == "stopped" || s.detail != "" {
			rt.Errorf("%s: %s (%q), but nobody told its end", what, s.reason, s.detail)
		}
	case s.detail != l.token:
		rt.Errorf("%s: ended as %q, want %q", what, s.detail, l.token)
	case s.reason != "id_reused" && (s.reason != "stopped" || s.closed.Sub(end).Abs() > 2*time.Millisecond):
		rt.Errorf("%s: %s at %v, want stopped at %v", what, s.reason, s.closed.Sub(began), l.ended)
	}
	if s.reason == "id_reused" && s.closed.Before(end) {
		rt.Errorf("%s: its seat went to another one before it ended", what)
	}
}
