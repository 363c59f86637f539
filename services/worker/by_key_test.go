package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/pgstore"
	"usher.internal/schemas/proto/usherv1"
)

// fakeSessions finds what by says, or fails.
type fakeSessions struct {
	by    map[[16]byte]*pgstore.KeyedSession
	asked []pgstore.KeySign
	seats []pgstore.NodeSeat
	err   error
}

func (f *fakeSessions) NodeSeats(context.Context, string, time.Duration) ([]pgstore.NodeSeat, error) {
	return f.seats, f.err
}

func (f *fakeSessions) SessionsByKey(_ context.Context, signs []pgstore.KeySign) ([]*pgstore.KeyedSession, error) {
	f.asked = append(f.asked, signs...)
	out := make([]*pgstore.KeyedSession, len(signs))
	for i, g := range signs {
		out[i] = f.by[g.Key]
	}
	return out, f.err
}

func TestSeatsFindsSessionsByKey(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	first, second := ask(), ask()
	one, two := b.answer(within(t, time.Second), "e1", first), b.answer(within(t, time.Second), "e1", second)
	over, overKey, unknown, foreign := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	k, f := b.keeper(), &fakeSessions{by: map[[16]byte]*pgstore.KeyedSession{
		[16]byte(first.GetSessionKey()):  {ID: idOf(t, one.GetSessionId())},
		[16]byte(second.GetSessionKey()): {ID: idOf(t, two.GetSessionId())},
		overKey:                          {ID: over, Closed: "expired"},
	}}
	k.sessions = f
	message := &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{
		{SessionKey: overKey[:], Node: "n1", Close: true},
		{SessionKey: first.GetSessionKey(), Node: "n1", Bytes: 10, AgeMs: 1500, OpenedAgeMs: 9000, IdsReturn: true},
		{SessionId: two.GetSessionId(), Node: "n1"},
		{SessionKey: unknown[:], Node: "n1"},
		{SessionKey: foreign[:], Node: "foreign", Close: true},
		{SessionKey: second.GetSessionKey(), Node: "n1", Close: true, Reason: "stopped"},
		{SessionKey: unknown[:15], Node: "n1"},
		{SessionKey: unknown[:]},
	}}
	r := k.renew(within(t, time.Second), "e1", message)
	if !r.GetOk() || len(f.asked) != 4 {
		t.Fatalf("reply = %v after %d look-ups, want 4", r, len(f.asked))
	}
	if g := f.asked[1]; !g.Returning || g.Age < 1500*time.Millisecond || g.Opened < 9*time.Second || g.Node != "n1" {
		t.Errorf("asked = %+v", g)
	}
	type end struct {
		key, id, reason string
		sign            int32
	}
	got := map[end]bool{}
	for _, e := range r.GetEnded() {
		got[end{string(e.GetSessionKey()), string(e.GetSessionId()), e.GetReason(), e.GetSign()}] = true
	}
	for _, want := range []end{
		{string(overKey[:]), string(over[:]), "expired", 1}, {string(unknown[:]), "", "", 4},
		{string(second.GetSessionKey()), string(two.GetSessionId()), "stopped", 6}, {"", string(two.GetSessionId()), "stopped", 0},
	} {
		if !got[want] {
			t.Errorf("%q is missing in %v", want, r.GetEnded())
		}
		delete(got, want)
	}
	if len(got) != 0 {
		t.Errorf("more than was asked for: %v", got)
	}
	if live := b.model.Live(); len(live) != 1 || live[0] != idOf(t, one.GetSessionId()) {
		t.Errorf("live = %v, want the first alone", live)
	}
	f.err = errors.New("away")
	if r := k.renew(within(t, time.Second), "e1", message); r.GetOk() {
		t.Errorf("reply = %v, want it sent again", r)
	}
}
