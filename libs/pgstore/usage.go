package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// rollBatch bounds a transaction that counts closed sessions.
const rollBatch = 20_000

const (
	rollUsageSQL = `SELECT usher.roll_usage(@max)`
	peaksDueSQL  = `SELECT day FROM usher.usage_peak_due ORDER BY day`
	rollPeaksSQL = `SELECT usher.roll_peaks(@day::date)`
	audienceSQL  = `SELECT usher.roll_audience(@day::date)`
)

// RollUsage counts in usher.usage what has closed since the last call, and live sessions by the days that are over; it
// returns how many closed ones it took. Each is counted once, however often it is called, by how many, and wherever one of
// them dies: a batch is a transaction.
func (s *Store) RollUsage(ctx context.Context) (int, error) {
	counted := 0
	for {
		var n int
		if err := s.pool.QueryRow(ctx, rollUsageSQL, pgx.NamedArgs{"max": rollBatch}).Scan(&n); err != nil {
			return counted, fmt.Errorf("counting usage: %w", unavailable(err))
		}
		counted += n
		if n < rollBatch {
			return counted, nil
		}
	}
}

// RollPeaks works out the peaks and the audience of the days whose sessions have changed, and returns how many days these were. It reads
// all sessions of such a day.
func (s *Store) RollPeaks(ctx context.Context) (int, error) {
	rows, err := s.pool.Query(ctx, peaksDueSQL)
	if err != nil {
		return 0, fmt.Errorf("listing days for peaks: %w", unavailable(err))
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return 0, fmt.Errorf("listing days for peaks: %w", unavailable(err))
	}
	for i, day := range days {
		// The peaks come last: they take the day off the list.
		for _, sql := range []string{audienceSQL, rollPeaksSQL} {
			if _, err := s.pool.Exec(ctx, sql, pgx.NamedArgs{"day": day}); err != nil {
				return i, fmt.Errorf("peaks of %s: %w", day.Format(time.DateOnly), unavailable(err))
			}
		}
	}
	return len(days), nil
}
