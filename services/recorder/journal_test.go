package recorder

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"usher.internal/libs/bus"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

func newScribe(t *testing.T, store JournalStore) *scribe {
	t.Helper()
	s := parse(t)
	ready := make(chan struct{})
	close(ready)
	return &scribe{
		region: "eu", store: store, ready: ready, snapshot: func() *policy.Snapshot { return s }, log: quiet(), metrics: newMetrics(nil),
	}
}

func batch(entries ...bus.Entry) bus.JournalBatch {
	for i := range entries {
		entries[i].Seq = uint64(i + 1)
		if entries[i].Edge == "" {
			entries[i].Edge = "e1"
		}
	}
	return bus.JournalBatch{Stream: "S", Last: uint64(len(entries)), Entries: entries}
}

func TestRecordPassesOverWhatMustNotBeStored(t *testing.T) {
	t.Parallel()
	store := new(fakeStore)
	s := newScribe(t, store)
	id := uuid.Must(uuid.NewV7())
	good, late, counted := row(), row(), repeats(id[:], 5)
	err := s.record(t.Context(), batch(
		bus.Entry{Kind: "uncounted", Entry: uncounted(late)},
		bus.Entry{Kind: "decision", Bad: errors.New("no protobuf")},
		bus.Entry{Kind: "decision", Entry: uncounted(row())}, // filed under another kind
		bus.Entry{Kind: "uncounted", Entry: decision(row())},
		bus.Entry{Kind: "whatever", Entry: decision(row())},
		bus.Entry{Kind: "decision", Entry: decision(row(func(r *usherv1.DecisionRow) { r.Node = "n2" }))},
		bus.Entry{Kind: "repeats", Entry: repeats([]byte{1}, 5)},
		bus.Entry{Kind: "repeats", Entry: repeats(id[:], -5)},
		bus.Entry{Kind: "repeats", Entry: counted},
		bus.Entry{Region: "us", Kind: "decision", Entry: decision(good)},
	))
	if err != nil {
		t.Fatalf("record: %v", err)
	}
	b := store.batches[0]
	if len(b.Decisions) != 1 || b.Decisions[0] != good || len(b.Uncounted) != 1 || b.Uncounted[0] != late {
		t.Errorf("decisions = %v, uncounted = %v", b.Decisions, b.Uncounted)
	}
	if good.GetRegion() != "us" || late.GetRegion() != "eu" {
		t.Errorf("regions %q and %q, want the subject's for an edge's row and the worker's word for its own", good.GetRegion(), late.GetRegion())
	}
	if len(b.Repeats) != 1 || b.Repeats[0] != counted.GetRepeats() || b.Last != 10 {
		t.Errorf("repeats = %v up to %d", b.Repeats, b.Last)
	}
}

func TestRecordMovesOnAlsoWhenNothingIsStored(t *testing.T) {
	t.Parallel()
	store := new(fakeStore)
	if err := newScribe(t, store).record(t.Context(), batch(bus.Entry{Kind: "decision", Bad: errors.New("bad")})); err != nil {
		t.Fatalf("record: %v", err)
	}
	if store.position != 1 {
		t.Errorf("position %d, want 1", store.position)
	}
}

func TestRecordTellsAMovedPositionFromAFault(t *testing.T) {
	t.Parallel()
	store := &fakeStore{position: 7}
	s := newScribe(t, store)
	b := batch(bus.Entry{Kind: "decision", Entry: decision(row())})
	if err := s.record(t.Context(), b); !errors.Is(err, bus.ErrMoved) {
		t.Errorf("record = %v, want %v", err, bus.ErrMoved)
	}
	store.fail = errors.New("away")
	if err := s.record(t.Context(), b); !errors.Is(err, store.fail) || errors.Is(err, bus.ErrMoved) {
		t.Errorf("record = %v, want %v", err, store.fail)
	}
}
