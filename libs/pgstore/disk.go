package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// An empty partition takes no room: it stands for late rows.
const oldestSQL = `
SELECT o.name, pg_total_relation_size(format('usher.%I', o.name)::regclass)
  FROM (SELECT usher.old_partitions(@parent, interval '0') AS name) o
 WHERE pg_relation_size(format('usher.%I', o.name)::regclass) > 0
 ORDER BY 1
 LIMIT 1`

// EarlyDrop is a partition that was dropped before its time.
type EarlyDrop struct {
	Table string `json:"table"`
	Bytes int64  `json:"bytes"`
}

// DropOldest makes room: it drops the oldest day of steps, else of decisions, else of closed sessions, which have been
// counted before. Today is never dropped, nor seats and usage. ok is false when nothing is left. An audit entry tells of it.
func (s *Store) DropOldest(ctx context.Context, author string) (d EarlyDrop, ok bool, err error) {
	for _, parent := range []string{"decision_steps", "decision", "session_history"} {
		err := s.pool.QueryRow(ctx, oldestSQL, pgx.NamedArgs{"parent": parent}).Scan(&d.Table, &d.Bytes)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return d, false, fmt.Errorf("looking for the oldest partition: %w", unavailable(err))
		}
		if parent == "session_history" {
			if err := s.count(ctx); err != nil {
				return d, false, err
			}
		}
		if err := s.dropPartition(ctx, parent, d.Table); err != nil {
			return d, false, err
		}
		// Late rows of that day must not be refused.
		if _, err := s.pool.Exec(ctx, makePartitionsSQL, pgx.NamedArgs{"back": partitionsBack, "ahead": partitionsAhead}); err != nil {
			return d, true, fmt.Errorf("making partitions: %w", unavailable(err))
		}
		if _, err := s.pool.Exec(ctx, auditSQL, pgx.NamedArgs{"action": "drop early", "author": author, "detail": d}); err != nil {
			return d, true, fmt.Errorf("auditing an early drop: %w", unavailable(err))
		}
		return d, true, nil
	}
	return d, false, nil
}
