package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// CheckStatus is how a check does, as one worker sees it.
type CheckStatus struct {
	Worker string `json:"worker"`
	Check  string `json:"check"`
	Type   string `json:"type"`
	// State is up, failing, open (its breaker keeps it from being asked) or idle (not asked yet).
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// LastOK is when it answered last, yes or no; nil if never.
	LastOK *time.Time `json:"last_ok"`
	// LastError is why it could not be asked the last time, "" if that never was.
	LastError string `json:"last_error"`
	// Asked and its parts are counts since the worker's start; P50 and P99 milliseconds of the
	// last few hundred questions.
	Asked       int64   `json:"asked"`
	Yes         int64   `json:"yes"`
	No          int64   `json:"no"`
	Unavailable int64   `json:"unavailable"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	// UpdatedAt and Stale, when the worker said so, and whether that is too long ago for a
	// worker that runs, are set by reading.
	UpdatedAt time.Time `json:"updated_at"`
	Stale     bool      `json:"stale"`
}

const putChecksSQL = `
WITH gone AS (
  DELETE FROM usher.check_status
   WHERE worker = @worker AND check_name <> ALL (@checks::text[])
)
INSERT INTO usher.check_status AS s (worker, check_name, type, state, since, last_ok, last_error, asked, yes, no, unavailable,
       p50_ms, p99_ms, updated_at)
SELECT @worker, c, t, st, si, ok, e, a, y, n, u, p50, p99, clock_timestamp()
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS setting,
       unnest(@checks::text[], @types::text[], @states::text[], @since::timestamptz[], @last_ok::timestamptz[], @errors::text[],
              @asked::bigint[], @yes::bigint[], @no::bigint[], @unavailable::bigint[], @p50::float8[], @p99::float8[])
       AS x(c, t, st, si, ok, e, a, y, n, u, p50, p99)
ON CONFLICT (worker, check_name) DO UPDATE
   SET type = EXCLUDED.type, state = EXCLUDED.state, since = EXCLUDED.since, last_ok = EXCLUDED.last_ok,
       last_error = EXCLUDED.last_error, asked = EXCLUDED.asked, yes = EXCLUDED.yes, no = EXCLUDED.no,
       unavailable = EXCLUDED.unavailable, p50_ms = EXCLUDED.p50_ms, p99_ms = EXCLUDED.p99_ms, updated_at = EXCLUDED.updated_at`

// PutChecks stores how all checks of a worker's policy do; none of it says that the worker has
// stopped. What it stored of other checks before is removed.
func (s *Store) PutChecks(ctx context.Context, worker string, all []CheckStatus) error {
	n := len(all)
	checks, types, states, errs := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	since, ok := make([]time.Time, n), make([]*time.Time, n)
	asked, yes, no, unknown := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	p50, p99 := make([]float64, n), make([]float64, n)
	for i, c := range all {
		checks[i], types[i], states[i], errs[i], since[i], ok[i] = c.Check, c.Type, c.State, c.LastError, c.Since, c.LastOK
		asked[i], yes[i], no[i], unknown[i], p50[i], p99[i] = c.Asked, c.Yes, c.No, c.Unavailable, c.P50, c.P99
	}
	_, err := s.pool.Exec(ctx, putChecksSQL, pgx.NamedArgs{
		"worker": worker, "checks": checks, "types": types, "states": states, "since": since, "last_ok": ok, "errors": errs,
		"asked": asked, "yes": yes, "no": no, "unavailable": unknown, "p50": p50, "p99": p99})
	if err != nil {
		return fmt.Errorf("storing how checks do: %w", unavailable(err))
	}
	return nil
}

// checkStale is the silence after which a worker has hardly stopped for a moment only: it writes
// every five seconds.
const checkStale = 20 * time.Second

const checksSQL = `
SELECT worker, check_name, type, state, since, last_ok, last_error, asked, yes, no, unavailable, p50_ms, p99_ms, updated_at,
       updated_at < clock_timestamp() - @stale::interval
  FROM usher.check_status
 ORDER BY check_name, worker
 LIMIT @max`

// Checks tells how the checks do, by check and worker.
func (s *Store) Checks(ctx context.Context, limit int) ([]CheckStatus, error) {
	rows, err := s.pool.Query(ctx, checksSQL, pgx.NamedArgs{"stale": checkStale, "max": limit})
	if err != nil {
		return nil, fmt.Errorf("reading how checks do: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CheckStatus])
	if err != nil {
		return nil, fmt.Errorf("reading how checks do: %w", unavailable(err))
	}
	return all, nil
}
