package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// policyEvery keeps "spread to all workers within a second".
	policyEvery   = 250 * time.Millisecond
	policyTimeout = 5 * time.Second
	// putAgain is how often the revision in force is put although it did not change: NATS
	// may have lost its data and got it back empty. Putting what is there writes nothing.
	putAgain = 15 * time.Second
)

// PolicyStore is where revisions are kept for good.
type PolicyStore interface {
	// CurrentRevision is the newest revision's number, 0 if there is none.
	CurrentRevision(ctx context.Context) (int64, error)
	// CurrentPolicy is the newest revision, nil if there is none.
	CurrentPolicy(ctx context.Context) (*pgstore.PolicyRow, error)
	// GoBack ends a trial that nobody confirmed in time; ok says whether there was one.
	GoBack(ctx context.Context) (t pgstore.Trial, ok bool, err error)
}

// policyTarget is from where workers and edges read; *bus.Conn is one.
type policyTarget interface {
	PutPolicy(ctx context.Context, p *usherv1.PolicyRevision, projections map[string]*usherv1.Projection) error
}

// parser reads a revision's text.
type parser func(row *pgstore.PolicyRow) (*policy.Snapshot, error)

// spreader brings the newest stored revision to the workers and its projections to the edges.
type spreader struct {
	store  PolicyStore
	target policyTarget
	parse  parser
	log    *slog.Logger

	// read is closed once it is known which policy is in force, also if none is.
	read     chan struct{}
	readOnce sync.Once
	snapshot atomic.Pointer[policy.Snapshot]

	// What follows belongs to the one goroutine that calls spread.
	row    *pgstore.PolicyRow // the newest revision that was looked at
	usable bool               // whether row could be parsed
	put    time.Time          // when row was last put
}

func newSpreader(store PolicyStore, target policyTarget, log *slog.Logger) *spreader {
	return &spreader{store: store, target: target, parse: parsePolicy, log: log, read: make(chan struct{})}
}

// current is the policy in force as this recorder knows it, nil if there is none.
func (s *spreader) current() *policy.Snapshot { return s.snapshot.Load() }

// goBack brings the policy before a trial in force again, if nobody confirmed that in time.
func (s *spreader) goBack(ctx context.Context) error {
	t, ok, err := s.store.GoBack(ctx)
	if ok {
		s.log.WarnContext(ctx, "policy was not confirmed in time, the one before comes in force again",
			slog.Int64(telemetry.Revision, t.Revision), slog.Int64("back_to", t.BackTo))
	}
	return err
}

// spread is one look. A revision that cannot be parsed (it was stored by a newer usher, or
// by hand) is told once and not spread: the one before goes on.
func (s *spreader) spread(ctx context.Context) error {
	revision, err := s.store.CurrentRevision(ctx)
	if err != nil {
		return err
	}
	if revision != 0 && (s.row == nil || s.row.Revision != revision) {
		if err := s.load(ctx); err != nil {
			return err
		}
	}
	s.readOnce.Do(func() { close(s.read) })
	if !s.usable || time.Since(s.put) < putAgain {
		return nil
	}
	return s.publish(ctx)
}

func (s *spreader) load(ctx context.Context) error {
	row, err := s.store.CurrentPolicy(ctx)
	if err != nil || row == nil {
		return err
	}
	snapshot, err := s.parse(row)
	s.row, s.usable, s.put = row, err == nil, time.Time{}
	if err != nil {
		s.log.ErrorContext(ctx, "stored policy revision cannot be used, it is not spread",
			slog.Int64(telemetry.Revision, row.Revision), slog.Any(telemetry.Error, err))
		return nil
	}
	s.snapshot.Store(snapshot)
	return nil
}

func (s *spreader) publish(ctx context.Context) error {
	row := s.row
	err := s.target.PutPolicy(ctx, &usherv1.PolicyRevision{
		Revision: row.Revision, Source: row.Source, Author: row.Author, Comment: row.Comment,
		CreatedUnixMs: row.CreatedAt.UnixMilli(),
	}, s.snapshot.Load().Projections())
	first := s.put.IsZero()
	switch {
	case errors.Is(err, bus.ErrStale):
		// A database that was restored from a backup never takes a newer policy away.
		if first {
			s.log.ErrorContext(ctx, "workers hold a newer policy revision than the database, it stays in force",
				slog.Int64(telemetry.Revision, row.Revision), slog.Any(telemetry.Error, err))
		}
	case err != nil:
		return fmt.Errorf("spreading policy revision %d: %w", row.Revision, err)
	case first:
		s.log.InfoContext(ctx, "policy revision spread", slog.Int64(telemetry.Revision, row.Revision))
	}
	s.put = time.Now()
	return nil
}

// parsePolicy reads a revision's text as the workers do.
func parsePolicy(row *pgstore.PolicyRow) (*policy.Snapshot, error) {
	s, err := policy.Parse(fmt.Sprintf("policy revision %d", row.Revision), []byte(row.Source), decide.Kinds())
	if err != nil {
		return nil, err
	}
	s.Revision = row.Revision
	return s, nil
}
