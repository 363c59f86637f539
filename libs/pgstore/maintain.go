package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/policy"
)

// Partitions are made so many days back (late journals after a region was cut off) and ahead.
const (
	partitionsBack  = 3
	partitionsAhead = 7
)

// Swept is what one sweep found.
type Swept struct {
	// Expired is how many seats had run out and were closed.
	Expired int
	// Soft is how many sessions were ended that had been beyond a soft limit for too long.
	Soft int
	// Gap is what every seat was prolonged by, because nobody could renew for so long.
	Gap time.Duration
}

const (
	tickSQL  = `SELECT usher.tick()`
	sweepSQL = `SELECT usher.sweep(@max)`
	softSQL  = `SELECT usher.sweep_soft(@max)`
)

// sweepBatch bounds a sweep's transaction; what is left is swept in the next call.
const sweepBatch = 1000

// softBatch bounds how many accounts beyond a soft limit one sweep locks; the others come in the next.
const softBatch = 200

// Sweep gives the ledger's sign of life, adds the gap after an outage to every seat, and closes what has expired.
// Several recorders may sweep at once.
func (s *Store) Sweep(ctx context.Context) (Swept, error) {
	var gap int64
	if err := s.pool.QueryRow(ctx, tickSQL).Scan(&gap); err != nil {
		return Swept{}, fmt.Errorf("ticking: %w", unavailable(err))
	}
	swept := Swept{Gap: time.Duration(gap) * time.Millisecond}
	for {
		var n int
		if err := s.pool.QueryRow(ctx, sweepSQL, pgx.NamedArgs{"max": sweepBatch}).Scan(&n); err != nil {
			return swept, fmt.Errorf("sweeping expired seats: %w", unavailable(err))
		}
		swept.Expired += n
		if n < sweepBatch {
			break
		}
	}
	if err := s.pool.QueryRow(ctx, softSQL, pgx.NamedArgs{"max": softBatch}).Scan(&swept.Soft); err != nil {
		return swept, fmt.Errorf("sweeping soft limits: %w", unavailable(err))
	}
	return swept, nil
}

// Maintained is what one round of maintenance did.
type Maintained struct {
	Created int // partitions made ahead
	Dropped int // partitions past their retention
	// Shortened partitions have no whole addresses any more.
	Shortened int
}

const (
	makePartitionsSQL = `SELECT usher.make_partitions(@back, @ahead)`
	oldPartitionsSQL  = `SELECT usher.old_partitions(@parent, @keep::interval)`
	oldClaimsSQL      = `DELETE FROM usher.claim WHERE at < now() - interval '30 days'`
	oldChangesSQL     = `DELETE FROM usher.subscriber_change WHERE at < now() - interval '1 day'`
	// A grant for the whole session is still looked for by sessions that it opened; none lasts longer than a node's hold.
	oldGrantsSQL = `DELETE FROM usher.middleware_grant WHERE expires_at < now() - CASE WHEN whole_session THEN interval '7 days' ELSE interval '1 minute' END`
	oldChecksSQL = `DELETE FROM usher.check_status WHERE updated_at < now() - interval '1 day'`
	oldKnownSQL  = `DELETE FROM usher.known WHERE at < now() - @grants::interval`
	// Directives that are over stay for the audit of what they did.
	oldForgottenSQL  = `DELETE FROM usher.forgotten WHERE until < now()`
	oldDirectivesSQL = `DELETE FROM usher.directive WHERE LEAST(revoked_at, until) < now() - interval '90 days'`
)

const (
	oldUsageSQL    = `DELETE FROM usher.usage_day WHERE day < (now() - @usage::interval)::date`
	oldPeaksSQL    = `DELETE FROM usher.usage_peak WHERE day < (now() - @usage::interval)::date`
	oldAudienceSQL = `DELETE FROM usher.audience_day WHERE day < (now() - @usage::interval)::date`
	oldAuditSQL    = `DELETE FROM usher.audit WHERE at < now() - @usage::interval`
	shortenSQL     = `SELECT usher.shorten_addresses(@keep::interval)`
)

// Maintain makes the partitions of the coming days and drops those past their retention. DETACH CONCURRENTLY and DROP
// hold no lock that a writer waits for. Several recorders may do it at once.
func (s *Store) Maintain(ctx context.Context, keep policy.Retention) (Maintained, error) {
	var m Maintained
	err := s.pool.QueryRow(ctx, makePartitionsSQL, pgx.NamedArgs{"back": partitionsBack, "ahead": partitionsAhead}).Scan(&m.Created)
	if err != nil {
		return m, fmt.Errorf("making partitions: %w", unavailable(err))
	}
	// What is dropped must have been counted.
	if err := s.count(ctx); err != nil {
		return m, err
	}
	steps := keep.Steps
	if keep.Addresses > 0 {
		steps = min(steps, keep.Addresses) // their words hold addresses
	}
	for _, t := range []struct {
		parent string
		keep   time.Duration
	}{{"decision_steps", steps}, {"decision", keep.Decisions}, {"session_history", keep.Sessions}} {
		n, err := s.drop(ctx, t.parent, t.keep)
		m.Dropped += n
		if err != nil {
			return m, err
		}
	}
	if err := s.removeOld(ctx, keep); err != nil {
		return m, err
	}
	m.Shortened, err = s.shorten(ctx, keep.Addresses)
	return m, err
}

// removeOld removes rows that are not kept by partitions.
func (s *Store) removeOld(ctx context.Context, keep policy.Retention) error {
	type removal struct {
		sql  string
		args pgx.NamedArgs
	}
	all := []removal{{oldClaimsSQL, nil}, {oldGrantsSQL, nil}, {oldChecksSQL, nil}, {oldChangesSQL, nil}, {oldDirectivesSQL, nil}, {oldForgottenSQL, nil}}
	if keep.Grants > 0 {
		all = append(all, removal{oldKnownSQL, pgx.NamedArgs{"grants": keep.Grants}})
	}
	if keep.Usage > 0 {
		for _, sql := range []string{oldUsageSQL, oldPeaksSQL, oldAudienceSQL, oldAuditSQL} {
			all = append(all, removal{sql, pgx.NamedArgs{"usage": keep.Usage}})
		}
	}
	for _, r := range all {
		if _, err := s.pool.Exec(ctx, r.sql, r.args); err != nil {
			return fmt.Errorf("removing old rows: %w", unavailable(err))
		}
	}
	return nil
}

// shorten shortens addresses in days older than keep, a partition at a time: a row is written once more, once.
func (s *Store) shorten(ctx context.Context, keep time.Duration) (int, error) {
	if keep <= 0 {
		return 0, nil
	}
	keep = max(keep, partitionsBack*24*time.Hour)
	for n := 0; ; n++ {
		var name *string
		if err := s.pool.QueryRow(ctx, shortenSQL, pgx.NamedArgs{"keep": keep}).Scan(&name); err != nil {
			return n, fmt.Errorf("shortening addresses: %w", unavailable(err))
		}
		if name == nil {
			return n, nil
		}
	}
}

// count brings usage up to date.
func (s *Store) count(ctx context.Context) error {
	if _, err := s.RollUsage(ctx); err != nil {
		return err
	}
	_, err := s.RollPeaks(ctx)
	return err
}

func (s *Store) drop(ctx context.Context, parent string, keep time.Duration) (int, error) {
	if keep <= 0 {
		return 0, nil // no retention set: nothing is thrown away
	}
	// Days that the partitions reach back for late rows are never dropped.
	keep = max(keep, partitionsBack*24*time.Hour)
	rows, err := s.pool.Query(ctx, oldPartitionsSQL, pgx.NamedArgs{"parent": parent, "keep": keep})
	if err != nil {
		return 0, fmt.Errorf("listing old partitions of %s: %w", parent, unavailable(err))
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("listing old partitions of %s: %w", parent, unavailable(err))
	}
	dropped := 0
	for _, name := range names {
		if err := s.dropPartition(ctx, parent, name); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

func (s *Store) dropPartition(ctx context.Context, parent, name string) error {
	table := pgx.Identifier{"usher", name}.Sanitize()
	// Not in a transaction block, as CONCURRENTLY demands; a crash between the two leaves a table to drop by hand.
	for _, sql := range []string{
		"ALTER TABLE " + pgx.Identifier{"usher", parent}.Sanitize() + " DETACH PARTITION " + table + " CONCURRENTLY",
		"DROP TABLE " + table,
	} {
		if _, err := s.pool.Exec(ctx, sql, pgx.QueryExecModeExec); err != nil {
			return fmt.Errorf("dropping partition %s: %w", name, unavailable(err))
		}
	}
	return nil
}
