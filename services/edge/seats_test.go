package edge

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

func TestASessionIsRenewedWhileItLivesAndClosedWhenSilent(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		play := func(d time.Duration, asking bool) {
			for range d / time.Second {
				time.Sleep(time.Second)
				if asking {
					b.ask(segment("/hls/a/1.ts"))
				}
				w.round(t.Context(), b.now(), false)
			}
		}
		play(time.Minute, true)
		signs := b.workers.Signs()
		if len(signs) != 3 { // idle 60 s: every 20 s
			t.Fatalf("%d signs in a minute, want 3", len(signs))
		}
		for i, s := range signs {
			if want := int64(1 + 20*(i+1)); s.GetClose() || s.GetRequests() != want || s.GetAgeMs() != 0 || s.GetNode() != "web1" {
				t.Errorf("sign %d = %v, want a renewal with %d requests", i, s, want)
			}
		}
		play(59*time.Second, false)
		if got := len(b.workers.Signs()); got != 3 {
			t.Errorf("%d signs, want none of a session that showed no life", got)
		}
		play(time.Second, false)
		signs = b.workers.Signs()
		if len(signs) != 4 {
			t.Fatalf("%d signs, want a close", len(signs))
		}
		if s := signs[3]; !s.GetClose() || s.GetReason() != "idle" || s.GetAgeMs() != 60_000 {
			t.Errorf("close = %v, want reason idle, 60 s old", s)
		}
		wantReason(t, "after the close", b.ask(segment("/hls/a/1.ts")), access.NoSession)
	})
}

func TestACallerThatAsksOnceIsHeld(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.ask(astraRequest("token=1"))
		time.Sleep(6*time.Hour - time.Second)
		w.round(t.Context(), b.now(), false)
		if len(b.workers.Signs()) != 0 || b.table.count.Load() != 1 {
			t.Fatal("a held session was touched")
		}
		time.Sleep(time.Second)
		w.round(t.Context(), b.now(), false)
		if s := b.workers.Signs(); len(s) != 1 || !s[0].GetClose() {
			t.Fatalf("signs = %v, want a close after the hold", s)
		}
	})
}

func TestAZappedSessionIsForgottenAfterAPause(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.ask(astraRequest("token=1"))
		b.control(endedSession(t, b, "zap", 0))
		time.Sleep(tolerance - time.Second)
		w.round(t.Context(), b.now(), false)
		if b.table.count.Load() != 1 {
			t.Fatal("forgotten within the tolerance")
		}
		time.Sleep(time.Second)
		w.round(t.Context(), b.now(), false)
		if b.table.count.Load() != 0 || len(b.workers.Signs()) != 0 {
			t.Errorf("%d sessions and %d signs, want none: the ledger has closed it", b.table.count.Load(), len(b.workers.Signs()))
		}
	})
}

func TestSignsAreKeptWhileWorkersAreAway(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.workers.Seats = func(*usherv1.SeatsRequest) (*usherv1.SeatsReply, error) { return nil, edgetest.ErrAway }
		b.ask(segment("/hls/gone/i.m3u8?token=t"))
		b.ask(segment("/hls/lives/i.m3u8?token=u"))
		for range 70 {
			time.Sleep(time.Second)
			b.ask(segment("/hls/lives/1.ts"))
			w.round(t.Context(), b.now(), false)
		}
		b.workers.Seats = func(*usherv1.SeatsRequest) (*usherv1.SeatsReply, error) { return &usherv1.SeatsReply{}, nil }
		w.round(t.Context(), b.now(), false)
		if len(b.workers.Signs()) != 0 {
			t.Fatal("signs were taken by nobody")
		}
		b.workers.Seats = nil
		w.round(t.Context(), b.now(), false)
		var closes, renewals int
		for _, s := range b.workers.Signs() {
			if s.GetClose() {
				closes++
				if s.GetAgeMs() != 70_000 {
					t.Errorf("close is %d ms old, want 70000: the age is of the sign, not of its telling", s.GetAgeMs())
				}
				continue
			}
			renewals++
		}
		if closes != 1 || renewals != 1 {
			t.Errorf("%d closes and %d renewals, want 1 and 1", closes, renewals)
		}
	})
}

func TestEndedSessionsAreDropped(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		reasons := map[string]string{"/hls/evicted/": "evicted", "/hls/zapped/": "zapped", "/hls/unknown/": ""}
		byID := map[string]string{}
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			r := edgetest.Allow(m)
			byID[string(r.GetSessionId())] = reasons["/"+m.GetStream()+"/"]
			return r, nil
		}
		b.workers.Seats = func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
			reply := &usherv1.SeatsReply{Ok: true}
			for _, s := range m.GetSigns() {
				reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionId: s.GetSessionId(), Reason: byID[string(s.GetSessionId())]})
			}
			return reply, nil
		}
		for p := range reasons {
			b.ask(segment(p + "i.m3u8?token=t"))
		}
		time.Sleep(20 * time.Second)
		for p := range reasons {
			b.ask(segment(p + "1.ts"))
		}
		w.round(t.Context(), b.now(), false)
		wantReason(t, "evicted", b.ask(segment("/hls/evicted/1.ts")), access.NoSession)
		wantReason(t, "unknown", b.ask(segment("/hls/unknown/1.ts")), access.NoSession)
		wantStatus(t, "zapped", b.ask(segment("/hls/zapped/1.ts")), http.StatusOK)
		wantAsked(t, "before the next playlist", b, 3)
		wantStatus(t, "evicted, with its token", b.ask(segment("/hls/evicted/i.m3u8?token=t")), http.StatusOK)
		wantAsked(t, "asked as new", b, 4)
	})
}

func TestAStopTellsTheLastSignsAndClosesNothing(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		const sessions = 2*maxSigns + 1
		var sizes []int
		b.workers.Seats = func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
			sizes = append(sizes, len(m.GetSigns()))
			return &usherv1.SeatsReply{Ok: true}, nil
		}
		for i := range sessions {
			b.ask(segment(fmt.Sprintf("/hls/c%d/i.m3u8?token=t", i)))
		}
		time.Sleep(time.Millisecond)
		for i := range sessions {
			b.ask(segment(fmt.Sprintf("/hls/c%d/1.ts", i)))
		}
		time.Sleep(time.Hour) // all are silent by now, but a stop closes nothing
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.sweep(ctx); err != nil {
			t.Fatal(err)
		}
		seen := map[uuid.UUID]bool{}
		for _, s := range b.workers.Signs() {
			if s.GetClose() {
				t.Fatal("a stop closes a session")
			}
			seen[uuid.UUID(s.GetSessionId())] = true
		}
		if len(seen) != sessions || len(sizes) != 3 || sizes[0] != maxSigns {
			t.Errorf("%d sessions told in %v, want %d in messages of %d", len(seen), sizes, sessions, maxSigns)
		}
	})
}

func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.table.limit = 2
	for i := range 5 {
		wantStatus(t, "playlist", b.ask(segment(fmt.Sprintf("/hls/c%d/i.m3u8?token=t", i))), http.StatusOK)
	}
	if got := b.table.count.Load(); got != 2 {
		t.Errorf("%d sessions kept, want 2", got)
	}
	wantStatus(t, "one that is not kept", b.ask(segment("/hls/c4/i.m3u8?token=t")), http.StatusOK)
	wantAsked(t, "one that is not kept is asked each time", b, 6)
}

func TestTrailsHoldTheNewestFirst(t *testing.T) {
	t.Parallel()
	table := newTable(10)
	trail := access.Key{9}
	make1 := func(k byte, token string) *session {
		s := &session{key: access.Key{k}, trail: trail, token: token}
		s.grant.Store(&grant{})
		table.put(s)
		return s
	}
	a, b, c := make1(1, "a"), make1(2, "b"), make1(3, "c")
	if table.follow(trail, "") != c || table.follow(trail, "a") != a {
		t.Error("follow does not give the newest, or not the one with the token")
	}
	table.remove(b)
	table.remove(b)
	table.remove(c)
	if table.follow(trail, "") != a || table.follow(trail, "b") != nil {
		t.Error("a removed session is followed")
	}
	again := make1(1, "a2") // takes the place of a
	if table.follow(trail, "") != again || table.remove(a) {
		t.Error("a replaced session is still there")
	}
	table.remove(again)
	if table.follow(trail, "") != nil || len(table.trail(trail).newest) != 0 || table.count.Load() != 0 {
		t.Error("an empty trail is kept")
	}
}
