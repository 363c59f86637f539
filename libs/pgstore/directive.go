package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/directive"
)

// Hits is whom a directive that refuses ends now.
type Hits struct {
	// Sessions are live ones, Users the accounts (tokens or addresses, where nobody knows an
	// account) that hold them.
	Sessions, Users int
}

// TooManyError is Direct's refusal of a directive that hits more users than was said.
type TooManyError struct{ Hits Hits }

// Error implements error.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("it would end %d sessions of %d users now", e.Hits.Sessions, e.Hits.Users)
}

const (
	directSQL = `
INSERT INTO usher.directive (id, kind, action, "limit", realm, user_id, network, stream, node, check_name, device, token,
       at, until, reason, author)
VALUES (@id, @kind, @action, @limit, @realm, @user, @network, @stream, @node, @check, @device, @token, @at, @until, @reason, @author)`

	clockSQL = `SELECT date_trunc('milliseconds', clock_timestamp())`

	refuseSQL = `
SELECT kind, ord, decision_id, outcome, reason, realm, user_id, session_id, live, repeated, closed, holders,
       outbox, key, subject, stream, device, node, bar_ms, bar_device, at
  FROM usher.refuse_seats(@ids, @reasons)`
)

// Direct stores a directive, ends the live sessions that it refuses and leaves word of both for the
// edges, in one transaction: recorders tell them within a second. Its At becomes Postgres's clock.
// The error is a *TooManyError, and nothing is done, where it hits more than maxUsers accounts.
// Who is judged at this very moment by a worker that has not heard of it is ended by Enforce.
func (s *Store) Direct(ctx context.Context, d directive.Directive, maxUsers int) (ended []admission.Ended, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, clockSQL).Scan(&d.At); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, directSQL, directiveArgs(&d)); err != nil {
			return err
		}
		seats, hits, err := seatsHit(ctx, tx, &d, directive.NewSet(d), d.At)
		switch {
		case err != nil:
			return err
		case hits.Users > maxUsers:
			return &TooManyError{Hits: hits}
		}
		ended, err = refuse(ctx, tx, seats)
		return err
	})
	var many *TooManyError
	if errors.As(err, &many) {
		return nil, many
	}
	if err != nil {
		return nil, fmt.Errorf("storing directive %s: %w", d.ID, unavailable(err))
	}
	return ended, nil
}

func directiveArgs(d *directive.Directive) pgx.NamedArgs {
	args := pgx.NamedArgs{
		"id": idOf(d.ID), "kind": string(d.Kind), "action": string(d.Action), "limit": (*int32)(nil),
		"realm": some(d.Realm), "user": some(d.User), "network": (*netip.Prefix)(nil), "stream": some(d.Stream), "node": some(d.Node),
		"check": some(d.Check), "device": some(d.Device), "token": idOf(d.Token),
		"at": d.At, "until": (*time.Time)(nil), "reason": d.Reason, "author": d.Author,
	}
	if d.Limit > 0 {
		args["limit"] = int32(min(d.Limit, 1<<30))
	}
	if d.Network.IsValid() {
		args["network"] = &d.Network
	}
	if !d.Until.IsZero() {
		args["until"] = &d.Until
	}
	return args
}

// seatHit is a live session that a directive refuses.
type seatHit struct {
	id     uuid.UUID
	reason access.CloseReason
}

const seatsHitSQL = `
SELECT session_id, subject, realm, COALESCE(user_id, ''), ip, stream, node, device, token
  FROM usher.seat
 WHERE (@realm::text IS NULL OR realm = @realm)
   AND (@user::text IS NULL OR user_id = @user)
   AND (@network::cidr IS NULL OR ip <<= @network)
   AND (@node::text IS NULL OR node = @node)
   AND (@device::text IS NULL OR device = @device)
   AND (@token::uuid IS NULL OR token = @token)`

// seatsHit finds the live sessions that the set refuses, among those that narrow may hit. Patterns
// are matched here and not in SQL, so that they mean the same everywhere.
func seatsHit(ctx context.Context, tx pgx.Tx, narrow *directive.Directive, set *directive.Set, now time.Time) ([]seatHit, Hits, error) {
	rows, err := tx.Query(ctx, seatsHitSQL, directiveArgs(narrow))
	if err != nil {
		return nil, Hits{}, err
	}
	var (
		hits           []seatHit
		session, token pgtype.UUID
		subject        pgtype.UUID
		ip             *netip.Addr
		v              directive.Viewer
		subjects       = map[access.Key]struct{}{}
	)
	_, err = pgx.ForEachRow(rows, []any{&session, &subject, &v.Realm, &v.User, &ip, &v.Stream, &v.Node, &v.Device, &token}, func() error {
		v.IP, v.Token = netip.Addr{}, access.Key(token.Bytes)
		if ip != nil {
			v.IP = *ip
		}
		d := set.Refusal(&v, now)
		if d == nil {
			return nil
		}
		reason := access.CloseBanned
		if d.Kind == directive.Override {
			reason = access.CloseOverridden
		}
		hits = append(hits, seatHit{uuid.UUID(session.Bytes), reason})
		subjects[access.Key(subject.Bytes)] = struct{}{}
		return nil
	})
	return hits, Hits{Sessions: len(hits), Users: len(subjects)}, err
}

// refuse ends sessions in the transaction that found them.
func refuse(ctx context.Context, tx pgx.Tx, seats []seatHit) ([]admission.Ended, error) {
	if len(seats) == 0 {
		return nil, nil
	}
	ids, reasons := make([]pgtype.UUID, len(seats)), make([]string, len(seats))
	for i, h := range seats {
		ids[i], reasons[i] = idOf(h.id), string(h.reason)
	}
	rows, err := tx.Query(ctx, refuseSQL, pgx.NamedArgs{"ids": ids, "reasons": reasons})
	if err != nil {
		return nil, err
	}
	var a answer
	var ended []admission.Ended
	_, err = pgx.ForEachRow(rows, a.targets(), func() error {
		ended = append(ended, a.ended())
		return nil
	})
	return ended, err
}

const revokeSQL = `
UPDATE usher.directive
   SET revoked_at = clock_timestamp(), revoked_by = @author, revoked_reason = @reason, told_at = NULL
 WHERE id = @id AND kind = @kind AND revoked_at IS NULL
RETURNING id`

// RevokeDirective ends a directive of a kind for good; false if none of that id is in force or
// waits to end by itself. Recorders tell edges and workers within a second.
func (s *Store) RevokeDirective(ctx context.Context, kind directive.Kind, id uuid.UUID, author, reason string) (bool, error) {
	tag, err := s.pool.Exec(ctx, revokeSQL, pgx.NamedArgs{"id": idOf(id), "kind": string(kind), "author": author, "reason": reason})
	if err != nil {
		return false, fmt.Errorf("revoking directive %s: %w", id, unavailable(err))
	}
	return tag.RowsAffected() == 1, nil
}
