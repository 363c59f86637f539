package pgstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/schemas/proto/usherv1"
)

// history is what is kept of a session that is over.
type history struct {
	reason, detail, country string
	bytes, playing          int64
	closed                  time.Time
}

func (h harness) history(id uuid.UUID) history {
	h.t.Helper()
	var r history
	err := h.store.pool.QueryRow(context.Background(), `SELECT close_reason, COALESCE(close_detail, ''), COALESCE(country, ''), bytes,
		COALESCE(playing_ms, -1), closed_at FROM usher.session_history WHERE session_id = $1`, [16]byte(id)).
		Scan(&r.reason, &r.detail, &r.country, &r.bytes, &r.playing, &r.closed)
	if err != nil {
		h.t.Fatalf("reading history of %s: %v", id, err)
	}
	return r
}

// opened opens a stream and ages it, as if that had been an hour ago and the last sign half an hour.
func (h harness) opened(stream string) *admission.Open {
	h.t.Helper()
	item := admissiontest.Viewer{User: "u", Device: stream, Limit: 20, Mode: access.RefuseNew}.Open(stream)
	if _, err := h.Apply(context.Background(), []admission.Item{item}); err != nil {
		h.t.Fatal(err)
	}
	h.exec("UPDATE usher.seat SET opened_at = opened_at - interval '1 hour', last_seen_at = last_seen_at - interval '30 minutes' WHERE session_id = $1",
		[16]byte(item.Open.Session))
	return item.Open
}

func (h harness) close(id uuid.UUID, why access.CloseReason) {
	h.t.Helper()
	if _, err := h.Apply(context.Background(), []admission.Item{{Sign: &admission.Sign{Session: id, Close: true, Reason: why, Bytes: 10}}}); err != nil {
		h.t.Fatal(err)
	}
}

func totalsOf(id uuid.UUID, bytes int64, ended time.Time) *usherv1.SessionTotals {
	t := &usherv1.SessionTotals{SessionId: id[:], Node: "n1", Bytes: bytes, PlayingMs: 3 * bytes, Country: "DE", Detail: "client"}
	if !ended.IsZero() {
		t.EndedUnixMs = ended.UnixMilli()
	}
	return t
}

func TestTotalsOfASessionThatIsOver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	now := time.Now()
	real := now.Add(-10 * time.Minute).Truncate(time.Millisecond)
	for name, c := range map[string]struct {
		why    access.CloseReason
		totals []*usherv1.SessionTotals // of a session that is filled in
		want   history
		moved  bool // the end is the node's
	}{
		"silent, and the node knew earlier": {access.CloseIdle, []*usherv1.SessionTotals{totalsOf(uuid.Nil, 50, real)},
			history{"stopped", "client", "DE", 50, 150, real}, true},
		"twice, and a lower total after the highest": {access.CloseIdle,
			[]*usherv1.SessionTotals{totalsOf(uuid.Nil, 50, real), totalsOf(uuid.Nil, 50, real), totalsOf(uuid.Nil, 20, time.Time{}), totalsOf(uuid.Nil, 30, now)},
			history{"stopped", "client", "DE", 50, 150, real}, true},
		"stopped, told late": {access.CloseStopped, []*usherv1.SessionTotals{totalsOf(uuid.Nil, 5, real)},
			history{"stopped", "client", "DE", 10, 15, real}, true},
		"an end before the last sign of life": {access.CloseIdle, []*usherv1.SessionTotals{totalsOf(uuid.Nil, 50, now.Add(-40*time.Minute))},
			history{"idle", "client", "DE", 50, 150, time.Time{}}, false},
		"an end in the future": {access.CloseIdle, []*usherv1.SessionTotals{totalsOf(uuid.Nil, 50, now.Add(time.Hour))},
			history{"idle", "client", "DE", 50, 150, time.Time{}}, false},
		"evicted stays evicted": {access.CloseEvicted, []*usherv1.SessionTotals{totalsOf(uuid.Nil, 50, real)},
			history{"evicted", "client", "DE", 50, 150, time.Time{}}, false},
	} {
		o := h.opened(name)
		h.close(o.Session, c.why)
		at := h.history(o.Session).closed
		for _, n := range c.totals {
			n.SessionId = o.Session[:]
		}
		h.complete(c.totals...)
		got := h.history(o.Session)
		if !c.moved {
			c.want.closed = at
		}
		if !got.closed.Equal(c.want.closed) {
			t.Errorf("%s: closed at %v, want %v", name, got.closed, c.want.closed)
		}
		got.closed, c.want.closed = time.Time{}, time.Time{}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// complete records totals, and among them some that can never be stored.
func (h harness) complete(totals ...*usherv1.SessionTotals) {
	h.t.Helper()
	var seq int64
	err := h.store.pool.QueryRow(context.Background(), "SELECT COALESCE((SELECT seq FROM usher.journal_position WHERE stream = 'J'), 0)").Scan(&seq)
	if err != nil {
		h.t.Fatal(err)
	}
	bad := totalsOf(uuid.New(), 1, time.Time{})
	bad.Detail = "\x00"
	if done := h.record(Batch{After: uint64(seq), Last: uint64(seq) + 1, Totals: append([]*usherv1.SessionTotals{{}, bad}, totals...)}); done.Bad == 0 {
		h.t.Errorf("recorded %+v, want the bad ones counted", done)
	}
}

func TestTotalsOfALiveOrAForeignSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	live := h.opened("live")
	foreign := totalsOf(live.Session, 1<<40, time.Now())
	foreign.Node = "n2"
	h.complete(totalsOf(live.Session, 77, time.Now()), foreign)
	s, err := h.store.Session(t.Context(), live.Session)
	if err != nil || s == nil || s.ClosedAt != nil || s.Bytes != 77 || s.Country == nil || *s.Country != "DE" {
		t.Errorf("session = %+v (%v), want it live, with its node's totals", s, err)
	}
}

func TestSessionsByKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	gone, live := h.opened("gone"), h.opened("live")
	h.close(gone.Session, access.CloseIdle)
	// An id that came again: the older session under live's key was opened two hours ago.
	older := h.opened("older")
	h.exec("UPDATE usher.seat SET opened_at = opened_at - interval '1 hour' WHERE session_id = $1", [16]byte(older.Session))
	h.close(older.Session, access.CloseIDReused)
	h.exec("UPDATE usher.session_history SET key = $1 WHERE session_id = $2", [16]byte(live.Key), [16]byte(older.Session))

	sign := func(o *admission.Open, returning bool, age, opened time.Duration) KeySign {
		return KeySign{Key: o.Key, Node: "n1", Returning: returning, Age: age, Opened: opened}
	}
	foreign := sign(live, false, 0, 0)
	foreign.Node = "n2"
	unknown := sign(live, false, 0, 0)
	unknown.Key[0]++
	cases := []struct {
		name string
		sign KeySign
		want *KeyedSession
	}{
		{"live", sign(live, false, 0, 0), &KeyedSession{ID: live.Session}},
		{"live, of a server whose clock is far off", sign(live, false, 5*time.Hour, 0), &KeyedSession{ID: live.Session}},
		{"over", sign(gone, false, 0, 0), &KeyedSession{ID: gone.Session, Closed: access.CloseIdle}},
		{"another node's", foreign, nil},
		{"never heard of", unknown, nil},
		{"live, the id may come again", sign(live, true, 10*time.Minute, time.Hour), &KeyedSession{ID: live.Session}},
		{"the one before, by when it was said", sign(live, true, 90*time.Minute, 0), &KeyedSession{ID: older.Session, Closed: access.CloseIDReused}},
		{"the one before, by its opening", sign(live, true, 0, 100*time.Minute), &KeyedSession{ID: older.Session, Closed: access.CloseIDReused}},
		{"before both", sign(live, true, 3*time.Hour, 0), nil},
	}
	signs := make([]KeySign, len(cases))
	for i := range cases {
		signs[i] = cases[i].sign
	}
	found, err := h.store.SessionsByKey(t.Context(), signs)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		if got := found[i]; (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: found %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestTotalsInAnyOrder: what a node said of a session is the same row, however often and in whatever
// order it is recorded.
func TestTotalsInAnyOrder(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		why := rapid.SampledFrom([]access.CloseReason{access.CloseIdle, access.CloseStopped, access.CloseZapped}).Draw(rt, "closed as")
		real := time.Now().Add(-time.Duration(rapid.IntRange(1, 25*60).Draw(rt, "ended")) * time.Second).Truncate(time.Millisecond)
		said := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) *usherv1.SessionTotals {
			return &usherv1.SessionTotals{Node: "n1", Bytes: rapid.Int64Range(0, 5).Draw(rt, "bytes") * 10, PlayingMs: rapid.Int64Range(0, 5).Draw(rt, "playing")}
		}), 0, 4).Draw(rt, "said")
		if rapid.Bool().Draw(rt, "end told") {
			said = append(said, &usherv1.SessionTotals{Node: "n1", Bytes: 70, Detail: "client", Country: "DE", EndedUnixMs: real.UnixMilli()})
		}
		inOrder, anyhow := h.opened(fmt.Sprint("in order ", n)), h.opened(fmt.Sprint("anyhow ", n))
		var rows []history
		for _, o := range []*admission.Open{inOrder, anyhow} {
			h.close(o.Session, why)
			told := said
			if o == anyhow {
				told = append(rapid.Permutation(said).Draw(rt, "once"), rapid.Permutation(said).Draw(rt, "again")...)
			}
			var all []*usherv1.SessionTotals
			for _, s := range told {
				s := proto.CloneOf(s)
				s.SessionId = o.Session[:]
				all = append(all, s)
			}
			h.complete(all...)
			row := h.history(o.Session)
			if !row.closed.Equal(real) {
				row.closed = time.Time{} // the ledger's own
			}
			rows = append(rows, row)
		}
		if rows[0] != rows[1] {
			rt.Fatalf("in order %+v, anyhow %+v", rows[0], rows[1])
		}
	})
}
