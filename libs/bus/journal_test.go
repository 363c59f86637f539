package bus_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/bus"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

func repeats(n int) *usherv1.JournalEntry {
	return &usherv1.JournalEntry{
		Id:   fmt.Sprintf("id-%d", n),
		What: &usherv1.JournalEntry_Repeats{Repeats: &usherv1.Repeats{Total: int64(n)}},
	}
}

// store stands for Postgres: rows and position move together or not at all.
type store struct {
	mu       sync.Mutex
	position map[time.Time]uint64
	rows     map[string]int
	bad      int
	batches  []int
	fail     func() error // asked before each transaction
}

func newStore() *store {
	return &store{position: make(map[time.Time]uint64), rows: make(map[string]int)}
}

func (s *store) from(incarnation time.Time) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position[incarnation], nil
}

func (s *store) take(_ context.Context, b bus.JournalBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	if s.position[b.Incarnation] != b.After {
		return bus.ErrMoved
	}
	for _, e := range b.Entries {
		if e.Bad != nil {
			s.bad++
			continue
		}
		s.rows[e.Entry.GetId()]++
	}
	s.position[b.Incarnation] = b.Last
	s.batches = append(s.batches, len(b.Entries))
	return nil
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rows)
}

func (s *store) exactlyOnce(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rows) != n {
		t.Errorf("%d rows, want %d", len(s.rows), n)
	}
	for id, times := range s.rows {
		if times != 1 {
			t.Errorf("%s stored %d times; positions %v", id, times, s.position)
		}
	}
}

func reading(t *testing.T, c *bus.Conn, s *store, batch int) (stop func()) {
	t.Helper()
	return background(t, func(ctx context.Context) error {
		return c.ReadJournal(ctx, region, s.from, batch, 20*time.Millisecond, s.take)
	})
}

func put(t *testing.T, j *bus.Journal, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		eventually(t, 20*time.Second, "entry is stored", func() bool {
			return j.Put(within(t, 2*time.Second), "repeats", repeats(n)) == nil
		})
	}
}

func TestJournalIsReadInBatches(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	j := c.Journal(region, edge)
	put(t, j, 0, 100)
	st := newStore()
	reading(t, connected(t, s, "r1"), st, 40)
	eventually(t, 5*time.Second, "backlog", func() bool { return st.count() == 100 })
	put(t, j, 100, 101)
	eventually(t, 2*time.Second, "a single entry", func() bool { return st.count() == 101 })
	st.exactlyOnce(t, 101)
	st.mu.Lock()
	defer st.mu.Unlock()
	if slices.Max(st.batches) > 40 || st.batches[0] != 40 {
		t.Errorf("batches = %v, want at most 40 and the first full", st.batches)
	}
}

func TestTheSameEntryIsStoredOnce(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	j := c.Journal(region, edge)
	put(t, j, 0, 5)
	put(t, j, 0, 6)
	st := newStore()
	reading(t, connected(t, s, "r1"), st, 10)
	eventually(t, 5*time.Second, "entries", func() bool { return st.count() == 6 })
	st.exactlyOnce(t, 6)
}

func TestEntriesCarryTheSubjectsNamesAndBadOnesAreHandedOn(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	nc := raw(t, s.ClientURL())
	for _, subject := range []string{
		names.Journal(region, "e99", "decision"), names.JournalOf(region)[:len(names.JournalOf(region))-1] + "too.many.tokens",
	} {
		if _, err := nc.Request(subject, []byte("\xff\xff"), 2*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Request(names.Journal(region, "e99", "decision"), nil, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	put(t, c.Journal(region, edge), 0, 1)
	got := make(chan bus.Entry, 8)
	background(t, func(ctx context.Context) error {
		return connected(t, s, "r1").ReadJournal(ctx, region,
			func(time.Time) (uint64, error) { return 0, nil }, 10, time.Millisecond,
			func(_ context.Context, b bus.JournalBatch) error {
				for _, e := range b.Entries {
					got <- e
				}
				return nil
			})
	})
	for i, edgeName := range []string{"e99", "", "e99"} {
		e := receive(t, 5*time.Second, "entry", got)
		if !errors.Is(e.Bad, bus.ErrMalformed) || e.Entry != nil || e.Edge != edgeName {
			t.Errorf("entry %d = %+v, want it bad, from %q", i, e, edgeName)
		}
	}
	e := receive(t, 5*time.Second, "entry", got)
	if e.Bad != nil || e.Edge != edge || e.Kind != "repeats" || e.Seq != 4 || e.Entry.GetId() != "id-0" {
		t.Errorf("entry = %+v", e)
	}
}

func TestJournalIsStoredExactlyOnceOverFaults(t *testing.T) {
	t.Parallel()
	srv := newRestartable(t)
	c := connected(t, srv.s, edge)
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	st := newStore()
	var n int
	st.fail = func() error { // every third transaction aborts
		if n++; n%3 == 0 {
			return errors.New("postgres is away")
		}
		return nil
	}
	// Two recorders race for the same position.
	reading(t, connected(t, srv.s, "r1"), st, 7)
	stop := reading(t, connected(t, srv.s, "r2"), st, 5)
	j := c.Journal(region, edge)
	put(t, j, 0, 100)
	srv.restart()
	put(t, j, 100, 200)
	stop()
	srv.restart()
	put(t, j, 200, 300)
	eventually(t, 20*time.Second, "all entries", func() bool { return st.count() == 300 })
	st.exactlyOnce(t, 300)
}

func TestAStreamMadeAnewIsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	st := newStore()
	reading(t, connected(t, s, "r1"), st, 10)
	j := c.Journal(region, edge)
	put(t, j, 0, 20)
	eventually(t, 5*time.Second, "first life", func() bool { return st.count() == 20 })
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(names.JournalStream(region)); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	put(t, j, 100, 103)
	eventually(t, 5*time.Second, "second life", func() bool { return st.count() == 23 })
	st.exactlyOnce(t, 23)
	st.mu.Lock()
	defer st.mu.Unlock()
	if got := slices.Sorted(maps.Values(st.position)); !slices.Equal(got, []uint64{3, 20}) {
		t.Errorf("positions = %v, want 3 and 20", got)
	}
	for inc := range st.position {
		if inc.Nanosecond()%1000 != 0 {
			t.Errorf("incarnation %v cannot be kept by Postgres", inc)
		}
	}
}

func TestAJournalShorterThanThePositionIsReadAnew(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	put(t, c.Journal(region, edge), 0, 3)
	st := newStore()
	from := func(inc time.Time) (uint64, error) {
		st.mu.Lock()
		defer st.mu.Unlock()
		if _, ok := st.position[inc]; !ok {
			st.position[inc] = 1000
		}
		return st.position[inc], nil
	}
	background(t, func(ctx context.Context) error {
		return connected(t, s, "r1").ReadJournal(ctx, region, from, 10, time.Millisecond, st.take)
	})
	eventually(t, 5*time.Second, "all that is there", func() bool { return st.count() == 3 })
	put(t, c.Journal(region, edge), 3, 6)
	eventually(t, 5*time.Second, "new entries", func() bool { return st.count() == 6 })
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, position := range st.position {
		if position != 6 {
			t.Errorf("position = %d, want 6", position)
		}
	}
}

func TestJournalRefusesWhatItCannotHold(t *testing.T) {
	t.Parallel()
	_, c := withStreams(t)
	if err := c.Journal(region, edge).Put(within(t, time.Second), "repeats", &usherv1.JournalEntry{}); !errors.Is(err, bus.ErrMalformed) {
		t.Errorf("entry without id = %v, want ErrMalformed", err)
	}
	if err := c.Journal(region, "a.b").Put(within(t, time.Second), "repeats", repeats(1)); err == nil {
		t.Error("an edge name with a dot was taken")
	}
	if err := c.ReadJournal(within(t, time.Second), region, nil, 0, 0, nil); err == nil {
		t.Error("a batch of 0 was taken")
	}
}
