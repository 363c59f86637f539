package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// journalBatch and journalWait: spec nats-and-postgres §2.5.
	journalBatch  = 1000
	journalWait   = 50 * time.Millisecond
	recordTimeout = 30 * time.Second
	// positionTimeout bounds the question where to go on; the bus asks again.
	positionTimeout = 5 * time.Second
)

// JournalStore keeps what the journal says, with the position up to which it was read in
// the same transaction. That, and not the broker's word, makes it exactly once.
type JournalStore interface {
	// Position is where a stream's incarnation has been recorded to, 0 if nowhere.
	Position(ctx context.Context, stream string, incarnation time.Time) (uint64, error)
	// Record stores a batch; pgstore.ErrPositionMoved when somebody else got further.
	Record(ctx context.Context, b pgstore.Batch) (pgstore.Recorded, error)
}

// journalSource reads a region's journal; *bus.Conn is one.
type journalSource interface {
	ReadJournal(ctx context.Context, region string, from bus.PositionFunc, batch int, wait time.Duration,
		f func(context.Context, bus.JournalBatch) error) error
}

// scribe records the journal of one region.
type scribe struct {
	region string
	source journalSource
	store  JournalStore
	// ready is closed when snapshot may be asked; snapshot is nil if there is no policy.
	ready    <-chan struct{}
	snapshot func() *policy.Snapshot
	log      *slog.Logger
	metrics  *metrics
}

// Run records until ctx ends. It waits for the policy, by which entries are judged.
func (s *scribe) Run(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil
	}
	from := func(incarnation time.Time) (uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, positionTimeout)
		defer cancel()
		return s.store.Position(ctx, nats.JournalStream(s.region), incarnation)
	}
	return s.source.ReadJournal(ctx, s.region, from, journalBatch, journalWait, s.record)
}

// record stores one batch. Entries that cannot or must not be stored are counted, told and
// passed over: they never hold up the others.
func (s *scribe) record(ctx context.Context, b bus.JournalBatch) error {
	began := time.Now()
	batch := s.read(ctx, b)
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	done, err := s.store.Record(ctx, batch)
	result := "stored"
	switch {
	case errors.Is(err, pgstore.ErrPositionMoved):
		err, result = fmt.Errorf("%w: %w", bus.ErrMoved, err), "moved"
	case err != nil:
		result = "failed"
		s.metrics.faults.WithLabelValues("journal").Inc()
	default:
		s.count(batch, done)
		s.lag(b, time.Now())
	}
	s.metrics.batchSeconds.WithLabelValues(result).Observe(time.Since(began).Seconds())
	return err
}

// read makes rows of a batch's entries.
func (s *scribe) read(ctx context.Context, b bus.JournalBatch) pgstore.Batch {
	out := pgstore.Batch{Stream: b.Stream, Incarnation: b.Incarnation, After: b.After, Last: b.Last}
	snapshot := s.snapshot()
	var refused refusals
	for i := range b.Entries {
		e := &b.Entries[i]
		if err := s.check(snapshot, e); err != nil {
			refused.add(s.metrics, e, err)
			continue
		}
		switch what := e.Entry.GetWhat().(type) {
		case *usherv1.JournalEntry_Decision:
			out.Decisions = append(out.Decisions, what.Decision)
		case *usherv1.JournalEntry_Uncounted:
			out.Uncounted = append(out.Uncounted, what.Uncounted)
		case *usherv1.JournalEntry_Repeats:
			out.Repeats = append(out.Repeats, what.Repeats)
		case *usherv1.JournalEntry_Totals:
			out.Totals = append(out.Totals, what.Totals)
		}
	}
	refused.tell(ctx, s.log)
	return out
}

func (s *scribe) check(snapshot *policy.Snapshot, e *bus.Entry) error {
	if e.Bad != nil {
		return fmt.Errorf("%w: %w", errMalformed, e.Bad)
	}
	if err := checkKind(e.Kind, e.Entry); err != nil {
		return err
	}
	switch what := e.Entry.GetWhat().(type) {
	case *usherv1.JournalEntry_Decision:
		// An edge says for which region it decides by where it may report, and not otherwise. A
		// worker reports where it is, of edges elsewhere too.
		what.Decision.Region = e.Region
		return checkRow(snapshot, s.region, e.Edge, what.Decision)
	case *usherv1.JournalEntry_Uncounted:
		return checkRow(snapshot, s.region, e.Edge, what.Uncounted)
	case *usherv1.JournalEntry_Repeats:
		return checkRepeats(what.Repeats)
	case *usherv1.JournalEntry_Totals:
		return checkTotals(snapshot, e.Edge, what.Totals)
	default:
		return fmt.Errorf("%w: unknown content", errMalformed)
	}
}

// count takes both kinds of decisions together, as the store does.
func (s *scribe) count(b pgstore.Batch, done pgstore.Recorded) {
	rows := func(kind, result string, n int) {
		s.metrics.rows.WithLabelValues(kind, result).Add(float64(n))
	}
	rows(kindDecision, "stored", done.New)
	rows(kindDecision, "overridden", done.Overridden)
	rows(kindDecision, "bad", done.Bad)
	rows(kindDecision, "duplicate", max(0, len(b.Decisions)+len(b.Uncounted)-done.New-done.Overridden-done.Bad))
	rows(kindRepeats, "stored", len(b.Repeats))
	rows(kindTotals, "stored", len(b.Totals))
}

// lag tells how far behind the recorder is: the age of the last entry of the batch.
func (s *scribe) lag(b bus.JournalBatch, now time.Time) {
	if len(b.Entries) == 0 {
		return
	}
	last := b.Entries[len(b.Entries)-1].Entry
	row := last.GetDecision()
	if row == nil {
		row = last.GetUncounted()
	}
	if id, err := uuid.FromBytes(row.GetId()); err == nil && id.Version() == 7 {
		s.metrics.lagSeconds.WithLabelValues(s.region).Set(max(0, now.Sub(admission.IDTime(id)).Seconds()))
	}
}

// refusals are the entries of one batch that were not stored: one line, not a thousand.
type refusals struct {
	n     int
	first *bus.Entry
	err   error
}

func (r *refusals) add(m *metrics, e *bus.Entry, err error) {
	if r.n++; r.n == 1 {
		r.first, r.err = e, err
	}
	result := "malformed"
	if errors.Is(err, errForeign) {
		result = "foreign"
	}
	kind := e.Kind
	switch kind {
	case kindDecision, kindUncounted, kindRepeats, kindTotals:
	default:
		kind = "other" // a hostile edge must not make series
	}
	m.rows.WithLabelValues(kind, result).Inc()
}

func (r *refusals) tell(ctx context.Context, log *slog.Logger) {
	if r.n == 0 {
		return
	}
	log.WarnContext(ctx, "journal entries refused", slog.Int(telemetry.Count, r.n),
		slog.String(telemetry.Edge, r.first.Edge), slog.Uint64(telemetry.Sequence, r.first.Seq), slog.Any(telemetry.Error, r.err))
}
