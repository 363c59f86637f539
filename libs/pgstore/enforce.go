package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/admission"
	"usher.internal/libs/directive"
)

const recentSQL = `
SELECT ` + directiveColumns + `
  FROM usher.directive
 WHERE at > clock_timestamp() - @window::interval AND revoked_at IS NULL AND check_name IS NULL AND action <> 'limit'`

// Enforce ends the sessions that a directive of the last window refuses and that live all the same: a worker
// judged them before it heard of it, and opened them after Direct had looked. Several may run at once.
func (s *Store) Enforce(ctx context.Context, window time.Duration) (ended []admission.Ended, err error) {
	recent, err := s.directives(ctx, "reading recent directives", recentSQL, pgx.NamedArgs{"window": window})
	if err != nil {
		return nil, err
	}
	all := make([]directive.Directive, len(recent))
	for i := range recent {
		all[i] = recent[i].Directive
	}
	set := directive.NewSet(all...)
	for i := range all {
		if all[i].Action != directive.Deny {
			continue
		}
		more, err := s.enforce(ctx, &all[i], set)
		ended = append(ended, more...)
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// enforce looks at whom one directive may hit. The others are in the set since a later one may let him in.
func (s *Store) enforce(ctx context.Context, d *directive.Directive, set *directive.Set) (ended []admission.Ended, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		seats, _, err := seatsHit(ctx, tx, d, set, time.Now())
		if err != nil {
			return err
		}
		ended, err = refuse(ctx, tx, seats)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("enforcing directive %s: %w", d.ID, unavailable(err))
	}
	return ended, nil
}

// A revocation always wins, and nothing else of a row can differ.
const adoptSQL = `
INSERT INTO usher.directive AS d (id, kind, action, "limit", realm, user_id, network, stream, node, check_name, device, token,
       at, until, reason, author, revoked_at, revoked_by, revoked_reason, told_at)
VALUES (@id, @kind, @action, @limit, @realm, @user, @network, @stream, @node, @check, @device, @token, @at, @until, @reason, @author,
       @revoked_at, @revoked_by, @revoked_reason, clock_timestamp())
ON CONFLICT (id) DO UPDATE
   SET revoked_at = EXCLUDED.revoked_at, revoked_by = EXCLUDED.revoked_by, revoked_reason = EXCLUDED.revoked_reason
 WHERE d.revoked_at IS NULL AND EXCLUDED.revoked_at IS NOT NULL`

// Adopt takes in what the control stream knows and this database does not, since it was restored from an
// older backup: the directive, or that it was revoked. It returns how many rows changed.
func (s *Store) Adopt(ctx context.Context, rows []DirectiveRow) (int, error) {
	changed := 0
	for i := range rows {
		r := &rows[i]
		args := directiveArgs(&r.Directive)
		args["revoked_at"], args["revoked_by"], args["revoked_reason"] = r.RevokedAt, some(r.RevokedBy), some(r.RevokedReason)
		tag, err := s.pool.Exec(ctx, adoptSQL, args)
		if err != nil {
			return changed, fmt.Errorf("adopting directive %s: %w", r.ID, unavailable(err))
		}
		changed += int(tag.RowsAffected())
	}
	return changed, nil
}
