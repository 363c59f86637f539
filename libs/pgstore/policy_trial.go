package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	// ErrNothingBefore means that there is no policy that a trial could go back to.
	ErrNothingBefore = errors.New("there is no other policy to go back to")
	// ErrNoTrial means that no revision waits to be confirmed.
	ErrNoTrial = errors.New("no revision waits to be confirmed")
)

// justNow is how young a revision with the same text must be for a trial to take it over: the
// watcher of a file may have been faster than the tool that was to try it.
const justNow = time.Minute

// Trial is a revision that goes back by itself unless it is confirmed.
type Trial struct {
	Revision, BackTo int64
	Due              time.Time
}

const lockPolicySQL = `
SELECT pg_advisory_xact_lock(@lock)`

const newestPolicySQL = `
SELECT revision, source,
       created_at > clock_timestamp() - @just_now::interval
       OR (due IS NOT NULL AND confirmed_at IS NULL AND went_back IS NULL)
  FROM usher.policy_revision
  LEFT JOIN usher.policy_trial USING (revision)
 ORDER BY revision DESC
 LIMIT 1`

// backToSQL is where a trial goes that follows a revision: not to one that is itself on trial,
// but to where that one would go.
const backToSQL = `
SELECT COALESCE(
  (SELECT back_to
     FROM usher.policy_trial
    WHERE revision = @revision AND confirmed_at IS NULL AND went_back IS NULL),
  @revision)`

const insertTrialSQL = `
INSERT INTO usher.policy_trial (revision, back_to, due)
VALUES (@revision, @back_to, clock_timestamp() + @lasts::interval)
    ON CONFLICT (revision) DO UPDATE SET due = excluded.due, confirmed_at = NULL, confirmed_by = NULL
 WHERE policy_trial.went_back IS NULL
RETURNING revision, back_to, due`

const beforeSQL = `
SELECT COALESCE(max(revision), 0)
  FROM usher.policy_revision
 WHERE revision < @revision`

// TryPolicy stores a policy as ApplyPolicy does, to go back to the one before after lasts unless
// it is confirmed. The very text that was stored a moment ago is not stored again but put on
// trial, and one that is on trial gets its time anew; one that has been in force for longer is
// no trial: ErrNothingBefore.
func (s *Store) TryPolicy(ctx context.Context, source, author, comment string, lasts time.Duration) (t Trial, err error) {
	args := pgx.NamedArgs{
		"source": source, "author": author, "comment": comment, "lasts": lasts, "just_now": justNow, "lock": int64(policyLock),
	}
	err = s.alone(ctx, func(tx pgx.Tx) error {
		newest, before, same, err := neighbours(ctx, tx, args)
		if err != nil {
			return err
		}
		args["revision"] = before
		if err := tx.QueryRow(ctx, backToSQL, args).Scan(&before); err != nil {
			return err
		}
		if !same {
			if err := tx.QueryRow(ctx, applyPolicySQL, args).Scan(&newest); err != nil {
				return err
			}
		}
		args["revision"], args["back_to"] = newest, before
		return tx.QueryRow(ctx, insertTrialSQL, args).Scan(&t.Revision, &t.BackTo, &t.Due)
	})
	if err != nil && !errors.Is(err, ErrNothingBefore) {
		err = fmt.Errorf("storing the policy: %w", unavailable(err))
	}
	return t, err
}

// neighbours finds the newest revision and the one that a trial of the source would follow: the
// newest, or where that is the very source already the one before it.
func neighbours(ctx context.Context, tx pgx.Tx, args pgx.NamedArgs) (newest, before int64, same bool, err error) {
	var text string
	var young bool
	err = tx.QueryRow(ctx, newestPolicySQL, args).Scan(&newest, &text, &young)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, false, ErrNothingBefore
	}
	if err != nil || text != args["source"] {
		return newest, newest, false, err
	}
	if !young {
		return 0, 0, false, ErrNothingBefore
	}
	args["revision"] = newest
	err = tx.QueryRow(ctx, beforeSQL, args).Scan(&before)
	if err == nil && before == 0 {
		err = ErrNothingBefore
	}
	return newest, before, true, err
}

const confirmPolicySQL = `
UPDATE usher.policy_trial
   SET confirmed_at = clock_timestamp(), confirmed_by = @author
 WHERE revision = (SELECT max(revision) FROM usher.policy_revision)
   AND (@revision = 0 OR revision = @revision)
   AND confirmed_at IS NULL
   AND went_back IS NULL
RETURNING revision`

// ConfirmPolicy keeps the revision that is on trial, which must be the given one unless that is
// 0, and returns its number; ErrNoTrial if there is none, or no more.
func (s *Store) ConfirmPolicy(ctx context.Context, revision int64, author string) (int64, error) {
	err := s.alone(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, confirmPolicySQL, pgx.NamedArgs{"revision": revision, "author": author}).Scan(&revision)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoTrial
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrNoTrial) {
		err = fmt.Errorf("confirming the policy: %w", unavailable(err))
	}
	return revision, err
}

const dueTrialSQL = `
SELECT EXISTS (
  SELECT 1
    FROM usher.policy_trial
   WHERE confirmed_at IS NULL
     AND went_back IS NULL
     AND due <= clock_timestamp()
     AND revision = (SELECT max(revision) FROM usher.policy_revision))`

const goBackSQL = `
  WITH over AS (
    SELECT revision, back_to
      FROM usher.policy_trial
     WHERE confirmed_at IS NULL
       AND went_back IS NULL
       AND due <= clock_timestamp()
       AND revision = (SELECT max(revision) FROM usher.policy_revision)),
  back AS (
    INSERT INTO usher.policy_revision (source, author, comment)
    SELECT p.source, 'usher', format('revision %s was not confirmed in time: back to revision %s', o.revision, o.back_to)
      FROM over o
      JOIN usher.policy_revision p ON p.revision = o.back_to
    RETURNING revision)
UPDATE usher.policy_trial t
   SET went_back = back.revision
  FROM over, back
 WHERE t.revision = over.revision
RETURNING t.revision, t.back_to, t.due`

// GoBack ends a trial that nobody confirmed in time: the policy before it is stored as the
// newest revision. ok says whether there was one. Any number of recorders may do so at once.
func (s *Store) GoBack(ctx context.Context) (t Trial, ok bool, err error) {
	// Asked often and hardly ever true: the lock is for those who find something.
	if err := s.pool.QueryRow(ctx, dueTrialSQL).Scan(&ok); err != nil || !ok {
		return t, false, unavailable(err)
	}
	err = s.alone(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, goBackSQL).Scan(&t.Revision, &t.BackTo, &t.Due)
		if errors.Is(err, pgx.ErrNoRows) {
			ok = false // another recorder was faster, or it was confirmed
			return nil
		}
		return err
	})
	if err != nil {
		return t, false, fmt.Errorf("going back to the policy before: %w", unavailable(err))
	}
	return t, ok, nil
}

// alone runs do in a transaction that stores policies alone.
func (s *Store) alone(ctx context.Context, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockPolicySQL, pgx.NamedArgs{"lock": int64(policyLock)}); err != nil {
			return err
		}
		return do(tx)
	})
}

const failedTrialSQL = `
SELECT revision, went_back IS NOT NULL
  FROM usher.policy_revision
  LEFT JOIN usher.policy_trial USING (revision)
 WHERE source = @source
 ORDER BY revision DESC
 LIMIT 1`

// FailedTrial is the newest revision with this very text, if nobody confirmed it in time; else 0.
func (s *Store) FailedTrial(ctx context.Context, source string) (int64, error) {
	var revision int64
	var failed bool
	err := s.pool.QueryRow(ctx, failedTrialSQL, pgx.NamedArgs{"source": source}).Scan(&revision, &failed)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !failed {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for the policy among the revisions: %w", unavailable(err))
	}
	return revision, nil
}

const seenPolicySQL = `
SELECT COALESCE(
  (SELECT max(revision) FROM usher.policy_revision WHERE source = @source) >=
  (SELECT max(revision) FROM usher.policy_revision WHERE author = @author),
  false)`

// SeenPolicy says whether this very text was stored by the author's newest revision, or by
// anybody since.
func (s *Store) SeenPolicy(ctx context.Context, source, author string) (seen bool, err error) {
	err = s.pool.QueryRow(ctx, seenPolicySQL, pgx.NamedArgs{"source": source, "author": author}).Scan(&seen)
	if err != nil {
		return false, fmt.Errorf("looking for the policy among the revisions: %w", unavailable(err))
	}
	return seen, nil
}
