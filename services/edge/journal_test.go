package edge

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

func row(id uuid.UUID) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{
		Id: id.String(), What: &usherv1.JournalEntry_Decision{Decision: &usherv1.DecisionRow{Id: id[:]}},
	}
}

func TestJournalSurvivesAnOutageAndDrainsOnStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := new(edgetest.Journal)
		out.Fail(edgetest.ErrAway)
		j := newJournal(out, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.run(ctx) }()
		for range 100 {
			j.add(row(uuid.New()))
		}
		time.Sleep(time.Hour)
		if got := j.waiting.Load(); got != 100 {
			t.Fatalf("%d entries wait, want 100", got)
		}
		out.Fail(nil)
		for range 50 {
			j.add(row(uuid.New()))
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := len(out.Rows()); got != 150 || j.waiting.Load() != 0 || j.dropped.Load() != 0 {
			t.Errorf("%d rows, %d waiting, %d dropped, want 150, 0, 0", got, j.waiting.Load(), j.dropped.Load())
		}
	})
}

func TestJournalStopIsBoundedAndCountsWhatItLoses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := new(edgetest.Journal)
		out.Fail(edgetest.ErrAway)
		j := newJournal(out, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		j.add(row(uuid.New()))
		begin := time.Now()
		if err := j.run(ctx); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > 2*drainTime || j.dropped.Load() != 1 {
			t.Errorf("stop took %v and counts %d lost, want at most %v and 1", time.Since(begin), j.dropped.Load(), drainTime)
		}
	})
}

func TestAnEntryThatCanNeverBeStoredHoldsUpNothing(t *testing.T) {
	t.Parallel()
	out := new(edgetest.Journal)
	j := newJournal(out, slog.New(slog.DiscardHandler))
	out.Fail(fmt.Errorf("entry: %w", bus.ErrMalformed))
	if e := row(uuid.New()); !j.add(e) || !j.put(t.Context(), e) {
		t.Fatal("the lane is stuck")
	}
	if j.dropped.Load() != 1 || j.waiting.Load() != 0 {
		t.Errorf("%d dropped, %d waiting, want 1 and 0", j.dropped.Load(), j.waiting.Load())
	}
}

func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	j := newJournal(new(edgetest.Journal), slog.New(slog.DiscardHandler))
	e := row(uuid.New()) // one row, so one lane
	for i := range laneDepth + 10 {
		if ok := j.add(e); ok != (i < laneDepth) {
			t.Fatalf("add %d = %v", i, ok)
		}
	}
	if j.dropped.Load() != 10 {
		t.Errorf("%d dropped, want 10", j.dropped.Load())
	}
}

func TestTalliesAreTotals(t *testing.T) {
	t.Parallel()
	y := newTallies()
	id := uuid.New()
	y.add(id, 1)
	y.add(id, 1)
	var got []int64
	take := func(ok bool) func(*usherv1.JournalEntry) bool {
		return func(e *usherv1.JournalEntry) bool {
			got = append(got, e.GetRepeats().GetTotal())
			return ok
		}
	}
	y.flush(1, take(false)) // no room: told again
	y.flush(1, take(true))
	y.flush(1, take(true)) // nothing new
	y.add(id, 2)
	y.flush(2, take(true))
	if len(got) != 3 || got[0] != 2 || got[1] != 2 || got[2] != 3 {
		t.Errorf("totals = %v, want 2 2 3", got)
	}
	y.flush(instant(2*tallyLife), take(true))
	if len(y.rows) != 0 {
		t.Error("a resting row is kept")
	}
}
