package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// PolicyRow is a stored revision of the policy.
type PolicyRow struct {
	Revision  int64
	Source    string // the file's text; secrets are references
	Author    string
	Comment   string
	CreatedAt time.Time
	// Due is when it goes back by itself, nil where it was applied for good. ConfirmedAt says
	// that it stays, WentBack names the revision that took its place when nobody did.
	Due, ConfirmedAt *time.Time
	// BackTo is where it would go.
	BackTo, WentBack *int64
}

// policyLock is held by whoever stores a revision, so that none comes between another's look
// at the newest and its own.
const policyLock = 0x75736865725f706f // "usher_po"

const applyPolicySQL = `
  WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(@lock))
INSERT INTO usher.policy_revision (source, author, comment)
SELECT @source, @author, @comment
  FROM alone
RETURNING revision`

// ApplyPolicy stores a policy that has been checked as the newest revision, and returns its number.
func (s *Store) ApplyPolicy(ctx context.Context, source, author, comment string) (int64, error) {
	var revision int64
	err := s.pool.QueryRow(ctx, applyPolicySQL, pgx.NamedArgs{
		"lock": int64(policyLock), "source": source, "author": author, "comment": comment}).Scan(&revision)
	if err != nil {
		return 0, fmt.Errorf("storing the policy: %w", unavailable(err))
	}
	return revision, nil
}

const currentRevisionSQL = `
SELECT COALESCE(max(revision), 0)
  FROM usher.policy_revision`

// CurrentRevision is the newest revision's number, 0 if there is none.
func (s *Store) CurrentRevision(ctx context.Context) (int64, error) {
	var revision int64
	if err := s.pool.QueryRow(ctx, currentRevisionSQL).Scan(&revision); err != nil {
		return 0, fmt.Errorf("reading the policy's revision: %w", unavailable(err))
	}
	return revision, nil
}

// CurrentPolicy is the newest revision, nil if there is none.
func (s *Store) CurrentPolicy(ctx context.Context) (*PolicyRow, error) {
	rows, err := s.PolicyHistory(ctx, 1)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

const policyRevisionSQL = `
SELECT revision, source, author, comment, created_at, due, confirmed_at, back_to, went_back
  FROM usher.policy_revision
  LEFT JOIN usher.policy_trial USING (revision)
 WHERE revision = @revision`

// PolicyRevision is one revision, nil if there is none of that number.
func (s *Store) PolicyRevision(ctx context.Context, revision int64) (*PolicyRow, error) {
	rows, err := s.pool.Query(ctx, policyRevisionSQL, pgx.NamedArgs{"revision": revision})
	if err != nil {
		return nil, fmt.Errorf("reading policy revision %d: %w", revision, unavailable(err))
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[PolicyRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading policy revision %d: %w", revision, unavailable(err))
	}
	return &row, nil
}

const policyHistorySQL = `
SELECT revision, source, author, comment, created_at, due, confirmed_at, back_to, went_back
  FROM usher.policy_revision
  LEFT JOIN usher.policy_trial USING (revision)
 ORDER BY revision DESC
 LIMIT @max`

// PolicyHistory is up to limit revisions, newest first.
func (s *Store) PolicyHistory(ctx context.Context, limit int) ([]PolicyRow, error) {
	rows, err := s.pool.Query(ctx, policyHistorySQL, pgx.NamedArgs{"max": limit})
	if err != nil {
		return nil, fmt.Errorf("reading the policy's history: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PolicyRow])
	if err != nil {
		return nil, fmt.Errorf("reading the policy's history: %w", unavailable(err))
	}
	return all, nil
}
