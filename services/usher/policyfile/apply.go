package policyfile

import (
	"context"
	"fmt"
	"time"

	"usher.internal/libs/pgstore"
)

// Apply stores the policy as a new revision, its token lists as fingerprints, unless it is
// the current one's very text: then it changes nothing and returns the current number with
// changed false. The error is ErrNoKey if the lists could not be fingerprinted.
func Apply(ctx context.Context, store Store, p *Policy, author, comment string) (revision int64, changed bool, err error) {
	if p.sealed == "" {
		return 0, false, ErrNoKey
	}
	current, err := store.CurrentPolicy(ctx)
	if err != nil {
		return 0, false, err
	}
	if current != nil && current.Source == p.sealed {
		return current.Revision, false, nil
	}
	revision, err = store.ApplyPolicy(ctx, p.sealed, author, comment)
	return revision, err == nil, err
}

// Try stores the policy as Apply does, to go back to the one before by itself unless somebody
// confirms it in time.
func Try(ctx context.Context, store Store, p *Policy, author, comment string, lasts time.Duration) (pgstore.Trial, error) {
	if p.sealed == "" {
		return pgstore.Trial{}, ErrNoKey
	}
	return store.TryPolicy(ctx, p.sealed, author, comment, lasts)
}

// FailedError is a file whose very text was tried and not confirmed: no file brings that back by
// itself, only a person who applies it again.
type FailedError struct{ Revision int64 }

// Error implements error.
func (e *FailedError) Error() string {
	return fmt.Sprintf("this policy was revision %d, which was not confirmed in time; usher policy apply brings it back", e.Revision)
}

// ApplyFile is Apply for a file that is followed by itself. The error is a *FailedError where its
// text was tried before and went back.
func ApplyFile(ctx context.Context, store Store, p *Policy, author, comment string) (revision int64, changed bool, err error) {
	if p.sealed == "" {
		return 0, false, ErrNoKey
	}
	current, err := store.CurrentPolicy(ctx)
	if err != nil {
		return 0, false, err
	}
	if current == nil || current.Source != p.sealed {
		failed, err := store.FailedTrial(ctx, p.sealed)
		if err != nil {
			return 0, false, err
		}
		if failed != 0 {
			return 0, false, &FailedError{failed}
		}
	}
	return Apply(ctx, store, p, author, comment)
}

// Since is the revision that stays in force at a start although the file differs: the file is
// not new, its text was stored when it was followed last or later, and somebody has applied
// another policy since. It is nil where the file counts.
func Since(ctx context.Context, store Store, p *Policy, author string) (*pgstore.PolicyRow, error) {
	seen, err := store.SeenPolicy(ctx, p.sealed, author)
	if err != nil || !seen {
		return nil, err
	}
	current, err := store.CurrentPolicy(ctx)
	if err != nil || current == nil || current.Source == p.sealed {
		return nil, err
	}
	return current, nil
}
