package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
)

var errAway = errors.New("away")

func TestRoundGoesOnThroughFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := &round{
			name: "test", every: time.Second, retry: 100 * time.Millisecond, timeout: 10 * time.Second, log: quiet(), metrics: newMetrics(nil),
			do: func(ctx context.Context) error {
				if n++; n <= 3 {
					return errAway
				}
				if n == 4 {
					<-ctx.Done() // a round that hangs is cut off
					return ctx.Err()
				}
				return nil
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15500*time.Millisecond)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		// 0, 100, 200, 300 ms; cut off at 10.3 s; then from 10.4 s each second.
		if n != 4+6 {
			t.Errorf("%d rounds, want 10", n)
		}
	})
}

func ended(row int64, age time.Duration) admission.Ended {
	id := uuid.Must(uuid.NewV7())
	return admission.Ended{Outbox: row, Session: id, Key: access.Key(id), Reason: access.CloseKilled, At: time.Now().Add(-age)}
}

func TestRelayTellsWhatWasLeft(t *testing.T) {
	t.Parallel()
	store, air := new(fakeStore), new(fakeBus)
	for i := range int64(600) {
		store.outbox = append(store.outbox, ended(i+1, time.Second))
	}
	store.outbox = append(store.outbox, ended(999, 0)) // its worker has 200 ms
	r := &relay{outbox: store, bus: air, metrics: newMetrics(nil)}
	if err := r.tell(t.Context()); err != nil {
		t.Fatalf("tell: %v", err)
	}
	if len(air.sent) != 600 || len(store.outbox) != 1 || store.outbox[0].Outbox != 999 {
		t.Errorf("%d told, %d left", len(air.sent), len(store.outbox))
	}
	if air.sent[0].GetKind() != "kill" {
		t.Errorf("message %v", air.sent[0])
	}
}

func TestRelayForgetsOnlyWhatWasTold(t *testing.T) {
	t.Parallel()
	store, air := new(fakeStore), &fakeBus{fail: errAway, failFrom: 2}
	for i := range int64(5) {
		store.outbox = append(store.outbox, ended(i+1, time.Second))
	}
	r := &relay{outbox: store, bus: air, metrics: newMetrics(nil)}
	if err := r.tell(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("tell = %v, want %v", err, errAway)
	}
	if len(store.outbox) != 3 || store.outbox[0].Outbox != 3 {
		t.Errorf("left %v, want 3 to 5", store.outbox)
	}
}

func TestSpreaderSpreadsEachRevisionOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, air := new(fakeStore), new(fakeBus)
		s := newSpreader(store, air, quiet())
		spread := func() {
			t.Helper()
			if err := s.spread(t.Context()); err != nil {
				t.Fatalf("spread: %v", err)
			}
		}
		spread()
		if len(air.policies) != 0 || s.current() != nil {
			t.Error("a policy out of nothing")
		}
		select {
		case <-s.read:
		default:
			t.Error("having no policy is an answer too")
		}
		store.setPolicy(3, testPolicy)
		for range 10 {
			spread()
		}
		if len(air.policies) != 1 || air.policies[0].GetRevision() != 3 || store.reads != 1 {
			t.Errorf("put %v after %d reads, want one of each", air.policies, store.reads)
		}
		if want := []string{"any", "edge.e2"}; !slices.Equal(air.keys, want) {
			t.Errorf("projections for %v, want %v", air.keys, want)
		}
		time.Sleep(putAgain)
		spread()
		if len(air.policies) != 2 {
			t.Errorf("put %d times, want once more in case NATS lost it", len(air.policies))
		}
		store.setPolicy(4, testPolicy)
		spread()
		if len(air.policies) != 3 || air.policies[2].GetRevision() != 4 || s.current().Revision != 4 {
			t.Errorf("put %v, want revision 4", air.policies)
		}
	})
}

func TestSpreaderKeepsWhatItCannotReplace(t *testing.T) {
	t.Parallel()
	store, air := new(fakeStore), new(fakeBus)
	s := newSpreader(store, air, quiet())
	store.setPolicy(1, testPolicy)
	if err := s.spread(t.Context()); err != nil {
		t.Fatalf("spread: %v", err)
	}
	store.setPolicy(2, "version: 99")
	for range 3 {
		if err := s.spread(t.Context()); err != nil {
			t.Fatalf("spread: %v", err)
		}
	}
	if len(air.policies) != 1 || s.current().Revision != 1 || store.reads != 2 {
		t.Errorf("put %v, current %d, %d reads", air.policies, s.current().Revision, store.reads)
	}
}

func TestSpreaderTriesAgainWhenNATSIsAway(t *testing.T) {
	t.Parallel()
	store, air := new(fakeStore), &fakeBus{fail: errAway}
	s := newSpreader(store, air, quiet())
	store.setPolicy(1, testPolicy)
	for range 2 {
		if err := s.spread(t.Context()); !errors.Is(err, errAway) {
			t.Fatalf("spread = %v, want %v", err, errAway)
		}
	}
	air.fail = fmt.Errorf("revision 1: %w", bus.ErrStale)
	for range 3 {
		if err := s.spread(t.Context()); err != nil {
			t.Fatalf("spread = %v: a newer policy in force is no fault", err)
		}
	}
	if len(air.policies) != 3 {
		t.Errorf("put %d times, want 3", len(air.policies))
	}
}

func TestMaintainTakesTheRetentionOfThePolicy(t *testing.T) {
	t.Parallel()
	store := new(fakeStore)
	var current *policy.Snapshot
	j := &janitor{store: store, snapshot: func() *policy.Snapshot { return current }, log: quiet()}
	if err := j.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	current = parse(t)
	if err := j.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	want := []policy.Retention{
		{Steps: 3 * day, Decisions: 30 * day, Sessions: 90 * day, Usage: 762 * day, Grants: 30 * day, Addresses: 30 * day},
		{Steps: day, Decisions: 2 * day, Sessions: 4 * day, Usage: 762 * day, Grants: 30 * day, Addresses: 30 * day},
	}
	if !slices.Equal(store.kept, want) {
		t.Errorf("kept %v, want %v", store.kept, want)
	}
}

func TestSweepReportsFaults(t *testing.T) {
	t.Parallel()
	store := &fakeStore{swept: []pgstore.Swept{{Expired: 3, Gap: time.Minute}}}
	s := &sweeper{store: store, log: quiet(), metrics: newMetrics(nil)}
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	store.setFail(errAway)
	if err := s.sweep(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("sweep = %v, want %v", err, errAway)
	}
}
