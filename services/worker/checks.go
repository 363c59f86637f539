package worker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
)

// States of a check, as they stand in the table, the metric and the log.
const (
	checkIdle    = "idle"    // not asked yet
	checkUp      = "up"      // it answers, yes or no
	checkFailing = "failing" // it did not, several times in a row
	checkOpen    = "open"    // its breaker keeps it from being asked
)

const (
	// failingAfter is how many questions in a row must stay without an answer.
	failingAfter = 3
	// upAfter is how long none may have stayed without one: a check that answers every other
	// time would change its state with each question.
	upAfter = 3 * time.Second
	// checksLook and checksWrite are how often states are looked at and stored at least.
	checksLook    = 250 * time.Millisecond
	checksWrite   = 5 * time.Second
	checksTimeout = 2 * time.Second
	// checkTimes is how many questions the percentiles are over.
	checkTimes = 512
)

// CheckStore shows operators how the checks do; *pgstore.Store is one.
type CheckStore interface {
	// PutChecks replaces what the worker stored before.
	PutChecks(ctx context.Context, worker string, all []pgstore.CheckStatus) error
}

// board keeps how the checks of the policy in force do, tells of changes, and stores it.
type board struct {
	worker string
	store  CheckStore // nil: it is only told
	// snapshot is the policy in force, nil if there is none.
	snapshot func() *policy.Snapshot
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time

	mu     sync.Mutex // guards checks
	checks map[string]*standing
}

// standing is how one check does.
type standing struct {
	pgstore.CheckStatus
	open      bool // its last question
	inRow     int  // questions without an answer, since the last one with
	lastError time.Time
	took      []time.Duration // a ring
	next      int
}

// asked takes note of a question; it is decide.Deps.Asked.
func (b *board) asked(a decide.Asking) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(a.Check)
	now := b.now()
	s.open = a.Open
	if a.Result == decide.Unavailable {
		s.Unavailable++
		s.inRow++
		s.lastError = now
		if !a.Open || s.LastError == "" {
			s.LastError = a.Text // why the breaker opened says more than that it is open
		}
	} else {
		s.inRow, s.LastOK = 0, &now
	}
	if a.Open {
		return
	}
	s.Asked++
	switch a.Result {
	case decide.Yes:
		s.Yes++
	case decide.No:
		s.No++
	}
	if len(s.took) < checkTimes {
		s.took = append(s.took, a.Took)
		return
	}
	s.took[s.next] = a.Took
	s.next = (s.next + 1) % checkTimes
}

// of is the standing of a check. The caller holds mu.
func (b *board) of(c *policy.Check) *standing {
	s, ok := b.checks[c.Name]
	if !ok || s.Type != c.Type {
		s = &standing{CheckStatus: pgstore.CheckStatus{Check: c.Name, Type: c.Type, State: checkIdle, Since: b.now()}}
		b.checks[c.Name] = s
	}
	return s
}

// look says what has changed since the last look, and drops what the policy has no more.
func (b *board) look(ctx context.Context) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.snapshot(); p != nil {
		for _, c := range p.Checks {
			_, ok := b.checks[c.Name]
			b.of(c)
			changed = changed || !ok
		}
		for name, s := range b.checks {
			if c := p.Checks[name]; c == nil || c.Type != s.Type {
				delete(b.checks, name)
				b.metrics.checkGone(name)
				changed = true
			}
		}
	}
	for _, s := range b.checks {
		before := s.State
		if s.State = b.state(s); s.State == before {
			continue
		}
		s.Since, changed = b.now(), true
		b.tell(ctx, s, before)
	}
	return changed
}

// state judges a check by its last questions. The caller holds mu.
func (b *board) state(s *standing) string {
	switch {
	case s.open:
		return checkOpen
	case s.inRow >= failingAfter:
		return checkFailing
	case s.inRow == 0 && s.LastOK != nil && (s.lastError.IsZero() || b.now().Sub(s.lastError) >= upAfter || s.State == checkIdle):
		return checkUp
	case s.inRow > 0 && s.State == checkOpen:
		return checkFailing // the probe stayed without an answer
	}
	return s.State
}

func (b *board) tell(ctx context.Context, s *standing, before string) {
	b.metrics.checkState(s.Check, s.State)
	attrs := []any{slog.String(telemetry.Check, s.Check), slog.String(telemetry.State, s.State), slog.String("was", before)}
	switch {
	case s.State == checkUp && before == checkIdle: // nothing that anybody waits for
	case s.State == checkUp:
		b.log.InfoContext(ctx, "check answers again", attrs...)
	default:
		b.log.WarnContext(ctx, "check does not answer, its fail mode decides", append(attrs, slog.String(telemetry.Error, s.LastError))...)
	}
}

// Run looks and stores until ctx ends; then the worker's rows are removed.
func (b *board) Run(ctx context.Context) error {
	every := time.NewTicker(checksLook)
	defer every.Stop()
	written, failing := time.Time{}, false
	for {
		select {
		case <-ctx.Done():
			if b.store != nil {
				_ = b.put(context.WithoutCancel(ctx), nil) // they are shown as stale otherwise
			}
			return nil
		case <-every.C:
		}
		changed := b.look(ctx)
		if b.store == nil || !changed && time.Since(written) < checksWrite {
			continue
		}
		written = time.Now()
		err := b.put(ctx, b.rows())
		if err != nil && !failing && ctx.Err() == nil {
			b.log.WarnContext(ctx, "how the checks do cannot be stored", slog.Any(telemetry.Error, err))
		}
		failing = err != nil
	}
}

func (b *board) put(ctx context.Context, rows []pgstore.CheckStatus) error {
	ctx, cancel := context.WithTimeout(ctx, checksTimeout)
	defer cancel()
	return b.store.PutChecks(ctx, b.worker, rows)
}

// rows are the standings as they are stored.
func (b *board) rows() []pgstore.CheckStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]pgstore.CheckStatus, 0, len(b.checks))
	for _, name := range slices.Sorted(maps.Keys(b.checks)) {
		s := b.checks[name]
		row := s.CheckStatus
		row.P50, row.P99 = percentile(s.took, 50), percentile(s.took, 99)
		rows = append(rows, row)
	}
	return rows
}

// percentile in milliseconds, 0 of nothing.
func percentile(took []time.Duration, p int) float64 {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return float64(sorted[(len(sorted)-1)*p/100].Microseconds()) / 1000
}
