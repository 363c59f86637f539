package edge

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// endedSession is the control message that ends the session under the only key in use.
func endedSession(t *testing.T, b *bench, kind string, bar time.Duration) *usherv1.Control {
	t.Helper()
	var m *usherv1.Control
	b.table.each(func(s *session) {
		id := s.grant.Load().session
		m = &usherv1.Control{
			Kind: kind, SessionId: id[:], SessionKey: s.key[:], Realm: "main", User: "alice",
			BarMs: bar.Milliseconds(), AtUnixMs: time.Now().UnixMilli(),
		}
	})
	if m == nil {
		t.Fatal("no session is known")
	}
	return m
}

func TestAKillIsRefusedUntilItsBarIsOver(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		m := endedSession(t, b, "kill", time.Minute)
		b.control(m)
		b.control(m) // told twice
		wantReason(t, "segment", b.ask(segment("/hls/a/1.ts")), access.NoSession)
		first := b.ask(segment("/hls/a/i.m3u8?token=t"))
		wantReason(t, "playlist", first, access.Killed)
		again := b.ask(segment("/hls/a/i.m3u8?token=t"))
		wantReason(t, "again", again, access.Killed)
		b.control(m)
		if id := decisionID(t, b.ask(segment("/hls/a/i.m3u8?token=t"))); id != decisionID(t, first) || id != decisionID(t, again) {
			t.Error("repeated refusals have rows of their own")
		}
		wantAsked(t, "under the bar", b, 1)
		b.report(t)
		if got := b.journal.Repeats(decisionID(t, first)); got != 2 {
			t.Errorf("repeats = %d, want 2", got)
		}
		for _, r := range b.journal.Rows() {
			if uuid.UUID(r.GetId()) == decisionID(t, first) && (r.GetReason() != "killed" || r.GetUser() != "alice") {
				t.Errorf("row = %v, want alice killed", r)
			}
		}
		time.Sleep(time.Minute)
		wantStatus(t, "after the bar", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
	})
}

// TestABarIsForItsOwnViewer: Astra's ids start again when it restarts, so that another viewer may come
// with the id of one who was evicted a moment ago.
func TestABarIsForItsOwnViewer(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(astraRequest("token=1"))
		m := endedSession(t, b, "evict", time.Minute)
		m.Stream, m.Device = "a001", "10.0.0.5 VLC/3.0"
		b.control(m)
		other := astraRequest("token=2")
		other.Header.Set("X-Real-IP", "10.0.0.6")
		wantStatus(t, "another viewer", b.ask(other), http.StatusOK)
		b.control(m) // told again, after he came
		wantReason(t, "the evicted one", b.ask(astraRequest("token=1")), access.Evicted)
		wantAsked(t, "the bar needs no worker", b, 2)
	})
}

func TestAnOldKillBarsOnlyWhatIsLeft(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		m := endedSession(t, b, "evict", time.Minute)
		time.Sleep(50 * time.Second)
		b.control(m)
		wantReason(t, "ten seconds are left", b.ask(segment("/hls/a/i.m3u8?token=t")), access.Evicted)
		time.Sleep(10 * time.Second)
		wantStatus(t, "nothing is left", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
	})
}

func TestAKillOvertakesTheAnswer(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			r := edgetest.Allow(m)
			b.control(&usherv1.Control{
				Kind: "kill", SessionId: r.GetSessionId(), SessionKey: m.GetSessionKey(),
				BarMs: 60_000, AtUnixMs: time.Now().UnixMilli(),
			})
			return r, nil
		}
		res := b.ask(segment("/hls/a/i.m3u8?token=t"))
		wantReason(t, "overtaken", res, access.Killed)
		if id := decisionID(t, res); id == uuid.UUID(b.workers.Asked()[0].GetId()) {
			t.Error("a refusal carries the id of a row that says allow")
		}
		if b.table.count.Load() != 0 {
			t.Error("the killed session is kept")
		}
	})
}

func TestAZapIsTolerated(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.control(endedSession(t, b, "zap", 0))
		for range doubt/(2*time.Second) - 1 {
			time.Sleep(2 * time.Second)
			wantStatus(t, "tolerated", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
		}
		wantAsked(t, "tolerated", b, 1)
		time.Sleep(4 * time.Second)
		wantStatus(t, "back, as far as can be told", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
		wantAsked(t, "back, as far as can be told", b, 2)
		m := b.workers.Asked()[1]
		if m.GetStillPlaying() || !m.GetCameBack() || len(m.GetSessionId()) != 0 || len(m.GetReplaces()) != 0 || m.GetToken() != "t" {
			t.Errorf("question = %v, want a new one that came back", m)
		}
		wantStatus(t, "its own session now", b.ask(segment("/hls/a/2.ts")), http.StatusOK)
		wantAsked(t, "its own session now", b, 2)
	})
}

func TestAZappedSessionThatPausedIsANewQuestion(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.control(endedSession(t, b, "zap", 0))
		time.Sleep(30 * time.Second)
		wantStatus(t, "back on the channel", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
		wantAsked(t, "back on the channel", b, 2)
		if m := b.workers.Asked()[1]; m.GetStillPlaying() || len(m.GetSessionId()) != 0 {
			t.Errorf("question = %v, want a plain new one", m)
		}
	})
}

func TestAZappedSessionThatIsRefusedIsForgotten(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.control(endedSession(t, b, "zap", 0))
		b.plays(t, doubt, "a")
		time.Sleep(2 * time.Second)
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return edgetest.Deny(m, "limit"), nil
		}
		wantReason(t, "no seat", b.ask(segment("/hls/a/1.ts")), access.Limit)
		wantReason(t, "next segment", b.ask(segment("/hls/a/1.ts")), access.NoSession)
	})
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.view.Store(nil)
		b.viewed = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = b.followControl(ctx) }()
		go func() { _ = b.followPolicy(ctx) }()
		if b.Ready() == nil {
			t.Error("ready without a policy")
		}
		b.feed.Policy(projection())
		synctest.Wait()
		if b.Ready() == nil {
			t.Error("ready without a tick")
		}
		b.feed.Tick()
		synctest.Wait()
		if err := b.Ready(); err != nil {
			t.Errorf("Ready() = %v with policy and tick", err)
		}
		bad := projection()
		bad.Revision, bad.Nodes[0].From = 2, []string{"nowhere"}
		b.feed.Policy(bad)
		synctest.Wait()
		if got := b.view.Load().revision; got != 1 {
			t.Errorf("revision %d in force, want 1: a bad one changes nothing", got)
		}
		time.Sleep(cutOff + time.Millisecond)
		if !b.cutOff() {
			t.Error("not cut off although no tick has come for 3 s")
		}
		if err := b.Ready(); err != nil {
			t.Errorf("Ready() = %v, want none: cut off it still answers whom it knows", err)
		}
		cancel()
	})
}
