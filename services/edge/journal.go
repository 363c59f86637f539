package edge

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/keep"
)

const (
	// lanes report side by side; entries of one row share a lane, so that a row comes
	// before its repeats.
	lanes = 8
	// laneDepth entries wait in a lane before more are dropped and counted.
	laneDepth = 8192
	// putTimeout is for one attempt to report an entry.
	putTimeout = 5 * time.Second
	// drainTime is what a stop waits for entries that were not reported yet.
	drainTime = 5 * time.Second
	// diskTimeout is for an attempt where an entry may wait on disk: it is safe there sooner.
	diskTimeout = time.Second
	// diskBatch entries are read from disk at once.
	diskBatch = 128
)

// Journal reports what the edge decided by itself, acknowledged when it is stored.
type Journal interface {
	Put(ctx context.Context, kind string, e *usherv1.JournalEntry) error
}

// journal is the bounded queue before the Journal. While that takes nothing, entries wait in the
// file beside the edge, if it has one.
type journal struct {
	out     Journal
	log     *slog.Logger
	lanes   [lanes]chan *usherv1.JournalEntry
	disk    [lanes]*keep.Queue // nil without a file
	waiting atomic.Int64
	dropped atomic.Int64
	// retry is how long to wait after a failed attempt.
	retry time.Duration
}

func newJournal(out Journal, log *slog.Logger) *journal {
	j := &journal{out: out, log: log, retry: 250 * time.Millisecond}
	for i := range j.lanes {
		j.lanes[i] = make(chan *usherv1.JournalEntry, laneDepth)
	}
	return j
}

// add queues an entry and never waits; false means that there was no room for it.
func (j *journal) add(e *usherv1.JournalEntry) bool {
	lane := j.lanes[laneOf(e)]
	j.waiting.Add(1)
	select {
	case lane <- e:
		return true
	default:
		j.waiting.Add(-1)
		j.dropped.Add(1)
		return false
	}
}

// laneOf is the same after a restart: what waits on disk comes first there too.
func laneOf(e *usherv1.JournalEntry) int {
	h := fnv.New32a()
	_, _ = h.Write(rowOf(e)) // never fails
	return int(h.Sum32() % lanes)
}

func rowOf(e *usherv1.JournalEntry) []byte {
	if r := e.GetRepeats(); r != nil {
		return r.GetDecisionId()
	}
	if t := e.GetTotals(); t != nil {
		return t.GetSessionId()
	}
	return e.GetDecision().GetId()
}

func kindOf(e *usherv1.JournalEntry) string {
	if e.GetRepeats() != nil {
		return "repeats"
	}
	if e.GetTotals() != nil {
		return "totals"
	}
	return "decision"
}

// run reports entries until ctx ends, then what is left within drainTime.
func (j *journal) run(ctx context.Context) error {
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cancel) })
	defer stop()
	var wg sync.WaitGroup
	for i, lane := range j.lanes {
		if j.disk[i] != nil {
			wg.Go(func() { j.reportKept(ctx, drain, lane, j.disk[i]) })
			continue
		}
		wg.Go(func() { j.report(ctx, drain, lane) })
	}
	wg.Wait()
	if left := j.waiting.Load(); left > 0 {
		j.dropped.Add(left)
		j.log.ErrorContext(ctx, "journal entries could not be reported before the stop",
			slog.Int64(telemetry.Count, left))
	}
	return nil
}

func (j *journal) report(ctx, drain context.Context, lane <-chan *usherv1.JournalEntry) {
	for {
		select {
		case e := <-lane:
			if !j.put(drain, e) {
				return
			}
		case <-ctx.Done():
			// Everybody who adds has stopped before the journal does.
			select {
			case e := <-lane:
				if !j.put(drain, e) {
					return
				}
			default:
				return
			}
		}
	}
}

// put tries until the entry is stored; false means that the time for it is over.
func (j *journal) put(ctx context.Context, e *usherv1.JournalEntry) bool {
	for ctx.Err() == nil {
		if j.once(ctx, e, putTimeout) == nil {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(j.retry):
		}
	}
	return false
}

// once makes one attempt. What can never be stored is done with too: it must not hold up
// what comes after it.
func (j *journal) once(ctx context.Context, e *usherv1.JournalEntry, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := j.out.Put(ctx, kindOf(e), e)
	switch {
	case errors.Is(err, bus.ErrMalformed):
		j.log.ErrorContext(ctx, "journal entry dropped", slog.Any(telemetry.Error, err))
		j.dropped.Add(1)
	case err != nil:
		j.log.DebugContext(ctx, "reporting a journal entry", slog.Any(telemetry.Error, err))
		return err
	}
	j.waiting.Add(-1)
	return nil
}
