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
}

const applyPolicySQL = `
INSERT INTO usher.policy_revision (source, author, comment)
VALUES (@source, @author, @comment)
RETURNING revision`

// ApplyPolicy stores a policy that has been checked as the newest revision, and returns its number.
func (s *Store) ApplyPolicy(ctx context.Context, source, author, comment string) (int64, error) {
	var revision int64
	err := s.pool.QueryRow(ctx, applyPolicySQL, pgx.NamedArgs{"source": source, "author": author, "comment": comment}).Scan(&revision)
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
SELECT revision, source, author, comment, created_at
  FROM usher.policy_revision
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
SELECT revision, source, author, comment, created_at
  FROM usher.policy_revision
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
