package edge

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const flSession = "6217fd62-16da-4206-9da9-0173d7552a14"

// counted is how many reports of flussonic's nodes came to this.
func (b *bench) counted(t *testing.T, result string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == telemetry.EdgeReports().Name && labels[telemetry.Caller] == "flussonic" && labels[telemetry.Result] == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// says is a report of a node about one of its sessions; ago is how long before now it was so.
func (b *bench) says(node, id string, ago time.Duration, change ...func(*report)) report {
	r := report{node: b.view.Load().nodes[node], id: id, at: b.now().add(-ago)}
	for _, f := range change {
		f(&r)
	}
	return r
}

func ended(r *report) {
	r.ended, r.reason, r.bytes, r.playing, r.country = true, "timeout", 5000, time.Minute, "DE"
}

func playing(bytes int64) func(*report) {
	return func(r *report) { r.bytes, r.playing = bytes, 30*time.Second }
}

func opened(ago time.Duration) func(*report) {
	return func(r *report) { r.opened = time.Now().Add(-ago) }
}

// round has the sweeper tell what there is, and moves the queue into the journal.
func (b *bench) round(t *testing.T, w *sweeper) {
	t.Helper()
	w.round(t.Context(), b.now(), false)
	b.report(t)
}

func TestANodeRenewsAndEndsItsSession(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.ask(flussonicSession(""))
		for range 10 { // far longer than lease and idle together
			time.Sleep(time.Minute)
			b.heard(t.Context(), b.says("fl1", flSession, 0, playing(100)))
			b.heard(t.Context(), b.says("fl1", flSession, 30*time.Second, playing(40))) // late
			b.round(t, w)
		}
		signs := b.workers.Signs()
		if s := signs[len(signs)-1]; len(signs) != 10 || s.GetClose() || s.GetBytes() != 100 || s.GetAgeMs() != 0 {
			t.Fatalf("%d signs, the last %v: want 10 renewals with the highest total", len(signs), s)
		}
		time.Sleep(10 * time.Second)
		for range 3 {
			b.heard(t.Context(), b.says("fl1", flSession, 2*time.Second, ended))
		}
		b.round(t, w)
		signs = b.workers.Signs()
		if s := signs[10]; !s.GetClose() || s.GetReason() != "stopped" || s.GetAgeMs() != 2000 || s.GetBytes() != 5000 {
			t.Errorf("close = %v, want stopped, 2 s old", s)
		}
		if b.table.count.Load() != 0 {
			t.Error("the session is still known")
		}
		// The repetitions are of a session that is not known any more: asked about by key.
		for _, s := range signs[11:] {
			if len(s.GetSessionId()) != 0 || len(s.GetSessionKey()) != 16 || !s.GetClose() || s.GetNode() != "fl1" || s.GetIdsReturn() {
				t.Errorf("repetition = %v, want a sign by key", s)
			}
		}
		totals := b.journal.Totals()
		if len(totals) != 1 {
			t.Fatalf("totals = %v, want one", totals)
		}
		if n := totals[0]; n.GetBytes() != 5000 || n.GetPlayingMs() != 60_000 || n.GetCountry() != "DE" || n.GetDetail() != "timeout" ||
			n.GetNode() != "fl1" || time.Since(time.UnixMilli(n.GetEndedUnixMs())).Round(time.Second) != 2*time.Second {
			t.Errorf("totals = %v", n)
		}
	})
}

func TestAnEndBeforeTheLastSignOfLifeEndsNothing(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(flussonicSession(""))
		time.Sleep(time.Minute)
		b.ask(flussonicSession(updateSession))
		b.heard(t.Context(), b.says("fl1", flSession, 10*time.Second, ended))
		if b.table.count.Load() != 1 {
			t.Fatal("a session was ended that has shown life since")
		}
		b.heard(t.Context(), b.says("fl1", flSession, 2*time.Second, ended, func(r *report) { r.late = 3 * time.Second })) // its clock is slow
		if b.table.count.Load() != 0 {
			t.Error("an end was not believed")
		}
	})
}

// TestAnIDThatCameAgain: Astra counts its sessions from the beginning when it restarts.
func TestAnIDThatCameAgain(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		time.Sleep(time.Hour)
		w := &sweeper{s: b.Service}
		b.ask(astraRequest("token=1"))
		time.Sleep(time.Minute)
		for what, r := range map[string]report{
			"an end of before":               b.says("n1", "1001", 2*time.Minute, ended),
			"opened before":                  b.says("n1", "1001", 0, ended, opened(30*time.Minute)),
			"another channel":                b.says("n1", "1001", 0, ended, func(r *report) { r.stream = "a002" }),
			"a sign of life of another time": b.says("n1", "1001", 2*time.Minute, playing(1<<40)),
		} {
			b.heard(t.Context(), r)
			if b.table.count.Load() != 1 {
				t.Fatalf("%s: the new session was ended", what)
			}
		}
		b.round(t, w)
		for _, s := range b.workers.Signs() {
			if len(s.GetSessionId()) != 0 || !s.GetIdsReturn() || !s.GetClose() {
				t.Errorf("sign = %v, want the ends told by key, with their times", s)
			}
		}
		if n := len(b.workers.Signs()); n != 3 {
			t.Errorf("%d signs, want 3", n)
		}
		b.heard(t.Context(), b.says("n1", "1001", 0, ended, opened(time.Minute)))
		if b.table.count.Load() != 0 {
			t.Error("its own end was not believed")
		}
	})
}

func TestASessionThatIsNotKnownHere(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		over := uuid.New()
		b.workers.Seats = func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
			reply := &usherv1.SeatsReply{Ok: true}
			for i, s := range m.GetSigns() {
				switch {
				case s.GetBytes() == 1: // live somewhere
				case s.GetBytes() == 2:
					reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionKey: s.GetSessionKey(), Sign: int32(i + 1), SessionId: over[:], Reason: "expired"})
				default:
					reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionKey: s.GetSessionKey(), Sign: int32(i + 1)})
				}
			}
			return reply, nil
		}
		b.heard(t.Context(), b.says("fl1", uuid.NewString(), 0, playing(1)))
		b.heard(t.Context(), b.says("fl1", uuid.NewString(), 0, playing(2), ended, playing(2)))
		b.heard(t.Context(), b.says("fl1", uuid.NewString(), 0, playing(3)))
		b.heard(t.Context(), b.says("fl1", uuid.NewString(), 0, ended))
		b.round(t, w)
		if n := len(b.workers.Signs()); n != 4 {
			t.Fatalf("%d signs, want 4", n)
		}
		if totals := b.journal.Totals(); len(totals) != 1 || uuid.UUID(totals[0].GetSessionId()) != over || totals[0].GetBytes() != 2 {
			t.Errorf("totals = %v, want those of the one that is over", totals)
		}
		for result, want := range map[string]float64{"by_key": 4, "unasked": 1, "unknown": 1} {
			if got := b.counted(t, result); got != want {
				t.Errorf("%s: %v, want %v", result, got, want)
			}
		}
		b.round(t, w)
		if n := len(b.workers.Signs()); n != 4 {
			t.Errorf("%d signs, want no more", n)
		}
	})
}

// TestAnEndIsToldAtOnce: whoever waits for the seat need not wait for the next round.
func TestAnEndIsToldAtOnce(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		var sweeping sync.WaitGroup
		sweeping.Go(func() { _ = b.sweep(ctx) })
		defer sweeping.Wait()
		defer cancel()
		b.ask(flussonicSession(""))
		time.Sleep(300 * time.Millisecond)
		b.heard(t.Context(), b.says("fl1", flSession, 0, ended))
		synctest.Wait()
		if signs := b.workers.Signs(); len(signs) != 1 || !signs[0].GetClose() {
			t.Errorf("signs = %v, want the close", signs)
		}
	})
}
