package worker

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

func (b *bench) keeper() *keeper {
	return &keeper{policies: b.policies, ledger: b.ledger, teller: b.told, log: b.log, metrics: b.metrics}
}

func TestSeatsRenewsAndCloses(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	one := b.answer(within(t, time.Second), "e1", ask())
	two := b.answer(within(t, time.Second), "e1", ask())
	gone := uuid.Must(uuid.NewV7())
	r := b.keeper().renew(within(t, time.Second), "e1", &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{
		{SessionId: one.SessionId, Node: "n1", Requests: 10, Bytes: 1000},
		{SessionId: two.SessionId, Node: "n1", Close: true, Reason: "idle"},
		{SessionId: gone[:], Node: "n1"},
	}})
	if !r.GetOk() || len(r.GetEnded()) != 2 {
		t.Fatalf("reply = %v", r)
	}
	if e := r.GetEnded()[0]; string(e.GetSessionId()) != string(two.GetSessionId()) || e.GetReason() != "idle" {
		t.Errorf("ended = %v, want the idle one", e)
	}
	if e := r.GetEnded()[1]; string(e.GetSessionId()) != string(gone[:]) || e.GetReason() != "" {
		t.Errorf("ended = %v, want the unknown one", e)
	}
	if live := b.model.Live(); len(live) != 1 || live[0] != idOf(t, one.GetSessionId()) {
		t.Errorf("live = %v", live)
	}
}

func TestSeatsIsNotOkWithoutTheLedger(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := uuid.Must(uuid.NewV7())
	b.model.SetDown(true)
	r := b.keeper().renew(within(t, time.Second), "e1", &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{{SessionId: id[:]}}})
	if r.GetOk() || len(r.GetEnded()) != 0 {
		t.Errorf("reply = %v, want it sent again", r)
	}
}

func TestSeatsReadsHostileSigns(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := uuid.Must(uuid.NewV7())
	k := b.keeper()
	for name, c := range map[string]struct {
		sign *usherv1.SeatSign
		kept bool
	}{
		"good":             {&usherv1.SeatSign{SessionId: id[:], AgeMs: 1000, Node: "n1"}, true},
		"node forgotten":   {&usherv1.SeatSign{SessionId: id[:], Node: "n9"}, true},
		"another's node":   {&usherv1.SeatSign{SessionId: id[:], Node: "foreign"}, false},
		"short id":         {&usherv1.SeatSign{SessionId: []byte{1}}, false},
		"no id":            {&usherv1.SeatSign{SessionId: make([]byte, 16)}, false},
		"from the future":  {&usherv1.SeatSign{SessionId: id[:], AgeMs: -1 << 62}, true},
		"from another age": {&usherv1.SeatSign{SessionId: id[:], AgeMs: 1 << 62}, true},
		"negative totals":  {&usherv1.SeatSign{SessionId: id[:], Requests: -5, Bytes: -5}, true},
		"close as killed":  {&usherv1.SeatSign{SessionId: id[:], Close: true, Reason: "killed"}, true},
		"nothing":          {&usherv1.SeatSign{}, false},
	} {
		items, _ := k.items("e1", &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{c.sign}}, time.Now())
		if (len(items) == 1) != c.kept {
			t.Errorf("%s: %d items", name, len(items))
			continue
		}
		if !c.kept {
			continue
		}
		s := items[0].Sign
		if s.Age < 0 || s.Age > maxAge+time.Minute || s.Requests < 0 || s.Bytes < 0 || s.Edge != "e1" {
			t.Errorf("%s: sign = %+v", name, s)
		}
		if s.Close && s.Reason != access.CloseIdle && s.Reason != access.CloseStopped {
			t.Errorf("%s: closed as %s", name, s.Reason)
		}
	}
}

func TestSeatsAddsItsOwnWaitingToTheAge(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := uuid.Must(uuid.NewV7())
	m := &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{{SessionId: id[:], AgeMs: 1000}}}
	items, _ := b.keeper().items("e1", m, time.Now().Add(-3*time.Second))
	if age := items[0].Sign.Age; age < 4*time.Second || age > 5*time.Second {
		t.Errorf("age = %s, want about 4s", age)
	}
}

func TestSeatsOfNothingIsOk(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.model.SetDown(true)
	if r := b.keeper().renew(within(t, time.Second), "e1", &usherv1.SeatsRequest{}); !r.GetOk() {
		t.Errorf("reply = %v", r)
	}
}
