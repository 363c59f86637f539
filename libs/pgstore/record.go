package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

// ErrPositionMoved means that another recorder, or an earlier life of this one, has recorded past Batch.After:
// read Position again and go on from there.
var ErrPositionMoved = errors.New("the journal has been recorded further by somebody else")

// Batch is a stretch of one journal stream.
type Batch struct {
	Stream      string
	Incarnation time.Time // the stream's creation: a stream made anew starts at 1 again
	After, Last uint64    // the position before and after this batch
	// Decisions are what edges answered by themselves: they stand.
	Decisions []*usherv1.DecisionRow
	// Uncounted are what workers answered while the ledger was away. They stand, unless the edge
	// says otherwise: it may have given such a worker up and heard another one. So they end no
	// session; an edge reports each denial of this kind itself.
	Uncounted []*usherv1.DecisionRow
	Repeats   []*usherv1.Repeats
	// Totals are what nodes said of sessions that are over.
	Totals []*usherv1.SessionTotals
}

// Recorded is what became of a batch.
type Recorded struct {
	New        int // rows that were not there
	Overridden int // rows that a worker had written and whose outcome the reporter's replaced
	Bad        int // rows that can never be stored, skipped
}

const (
	positionSQL = `
SELECT seq
  FROM usher.journal_position
 WHERE stream = @stream AND incarnation = @incarnation`

	advanceSQL = `
INSERT INTO usher.journal_position AS p (stream, incarnation, seq)
VALUES (@stream, @incarnation, @last)
ON CONFLICT (stream) DO UPDATE SET incarnation = EXCLUDED.incarnation, seq = EXCLUDED.seq
 WHERE (p.incarnation = EXCLUDED.incarnation AND p.seq = @after)
    OR (p.incarnation <> EXCLUDED.incarnation AND @after = 0)`

	reportSQL = `
INSERT INTO usher.decision (at, decision_id, session_id, trace_id, policy_revision, duration_us, repeats, by_edge,
       outcome, would, would_reason, would_rule, reason, region, edge, node, caller, stream, realm, user_id, ip)
VALUES (@at, @id, @session, @trace, @revision, @us, @repeats, @by_edge, @outcome, @would, @would_reason, @would_rule, @reason, @region, @edge, @node,
       @caller, @stream, @realm, @user, @ip)
ON CONFLICT DO NOTHING`

	// What was answered stands: it replaces a row that a worker committed under the same id while nobody waited any
	// more. An edge's own word is the last.
	overrideSQL = `
UPDATE usher.decision
   SET outcome = @outcome, reason = @reason, by_edge = @by_edge, repeats = greatest(repeats, @repeats)
 WHERE at = @at AND decision_id = @id AND NOT by_edge`

	// The row's steps go on with those that led to what was answered.
	overrideStepsSQL = `
UPDATE usher.decision_steps
   SET steps = CASE WHEN steps = '[]' THEN @steps ELSE left(steps, -1) || ',' || substr(@steps, 2) END
 WHERE at = @at AND decision_id = @id AND @steps <> '[]'`

	reportStepsSQL = `
INSERT INTO usher.decision_steps (at, decision_id, steps)
SELECT @at, @id, @steps
 WHERE NOT EXISTS (SELECT 1 FROM usher.decision_steps WHERE at = @at AND decision_id = @id)`

	// The edge denied: the seat that a worker took under the same id is given back.
	unseatSQL = `
SELECT count(*)
  FROM (SELECT session_id FROM usher.seat WHERE decision_id = @id
           AND session_id = (SELECT session_id FROM usher.decision WHERE at = @at AND decision_id = @id)
           FOR UPDATE) s,
       LATERAL usher.end_seats(clock_timestamp(), ARRAY[0], ARRAY[s.session_id], ARRAY['edge_denied'], NULL)`

	repeatsSQL = `
UPDATE usher.decision
   SET repeats = greatest(repeats, @total)
 WHERE at = @at AND decision_id = @id`
)

// Position is the last sequence of a stream's incarnation that has been recorded, 0 if none.
func (s *Store) Position(ctx context.Context, stream string, incarnation time.Time) (uint64, error) {
	var seq int64
	err := s.pool.QueryRow(ctx, positionSQL, pgx.NamedArgs{"stream": stream, "incarnation": incarnation.UTC()}).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the journal position of %s: %w", stream, unavailable(err))
	}
	return uint64(seq), nil
}

// Record stores a batch and its position in one transaction: exactly once, however often it is sent. A row that
// Postgres can never take is skipped and counted; the others are not affected. Errors: ErrPositionMoved;
// admission.ErrUnavailable, after which the batch must be sent again.
func (s *Store) Record(ctx context.Context, b Batch) (Recorded, error) {
	var done Recorded
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		done = Recorded{}
		tag, err := tx.Exec(ctx, advanceSQL, pgx.NamedArgs{
			"stream": b.Stream, "incarnation": b.Incarnation.UTC(), "last": int64(b.Last), "after": int64(b.After)})
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrPositionMoved
		}
		if err := withoutForgotten(ctx, tx, b.Decisions, b.Uncounted); err != nil {
			return err
		}
		for _, row := range b.Decisions {
			if err := guarded(ctx, tx, &done, func(tx pgx.Tx) error { return report(ctx, tx, row, true, &done) }); err != nil {
				return err
			}
		}
		for _, row := range b.Uncounted {
			if err := guarded(ctx, tx, &done, func(tx pgx.Tx) error { return report(ctx, tx, row, false, &done) }); err != nil {
				return err
			}
		}
		for _, r := range b.Repeats {
			if err := guarded(ctx, tx, &done, func(tx pgx.Tx) error { return repeat(ctx, tx, r) }); err != nil {
				return err
			}
		}
		for _, t := range b.Totals {
			if err := guarded(ctx, tx, &done, func(tx pgx.Tx) error { return complete(ctx, tx, t) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrPositionMoved) {
		return Recorded{}, fmt.Errorf("recording %s: %w", b.Stream, unavailable(err))
	}
	return done, err
}

// guarded runs one row under a savepoint, so that a row that can never be stored does not take the batch with it.
func guarded(ctx context.Context, tx pgx.Tx, done *Recorded, f func(pgx.Tx) error) error {
	before := *done
	err := pgx.BeginFunc(ctx, tx, f)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && (pg.Code[:2] == "22" || pg.Code[:2] == "23"), errors.Is(err, admission.ErrBadItem):
		*done = before
		done.Bad++
		return nil
	default:
		return err
	}
}

func report(ctx context.Context, tx pgx.Tx, row *usherv1.DecisionRow, byEdge bool, done *Recorded) error {
	args, err := rowArgs(row)
	if err != nil {
		return err
	}
	args["by_edge"] = byEdge
	tag, err := tx.Exec(ctx, reportSQL, args)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 1 {
		done.New++
	} else if over, err := override(ctx, tx, args); err != nil || !over {
		return err
	} else {
		done.Overridden++
	}
	_, err = tx.Exec(ctx, reportStepsSQL, args)
	return err
}

// override lets what was answered stand in place of what a worker committed; false when the row is an edge's word already.
func override(ctx context.Context, tx pgx.Tx, args pgx.NamedArgs) (bool, error) {
	tag, err := tx.Exec(ctx, overrideSQL, args)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	if _, err := tx.Exec(ctx, overrideStepsSQL, args); err != nil {
		return false, err
	}
	if args["by_edge"] == true && args["outcome"] == "deny" {
		var n int
		if err := tx.QueryRow(ctx, unseatSQL, args).Scan(&n); err != nil {
			return false, err
		}
	}
	return true, nil
}

func repeat(ctx context.Context, tx pgx.Tx, r *usherv1.Repeats) error {
	id, err := uuid.FromBytes(r.GetDecisionId())
	if err != nil || id.Version() != 7 {
		return fmt.Errorf("%w: repeats of no question", admission.ErrBadItem)
	}
	_, err = tx.Exec(ctx, repeatsSQL, pgx.NamedArgs{"at": admission.IDTime(id), "id": idOf(id), "total": r.GetTotal()})
	return err
}

func rowArgs(row *usherv1.DecisionRow) (pgx.NamedArgs, error) {
	id, err := uuid.FromBytes(row.GetId())
	if err != nil || id.Version() != 7 {
		return nil, fmt.Errorf("%w: question id", admission.ErrBadItem)
	}
	return pgx.NamedArgs{
		"at": admission.IDTime(id), "id": idOf(id), "session": optionalID(row.GetSessionId()), "trace": optionalID(row.GetTraceId()),
		"revision": row.GetPolicyRevision(), "us": row.GetDurationUs(), "repeats": row.GetRepeats(),
		"outcome": row.GetOutcome(), "reason": row.GetReason(), "region": row.GetRegion(), "edge": row.GetEdge(),
		"node": row.GetNode(), "caller": row.GetCaller(), "stream": row.GetStream(), "realm": row.GetRealm(),
		"would": textOf(row.GetWould()), "would_reason": textOf(row.GetWouldReason()), "would_rule": textOf(row.GetWouldRule()),
		"user": textOf(row.GetUser()), "ip": textOf(row.GetIp()), "steps": cmp.Or(row.GetSteps(), "[]"),
	}, nil
}

func optionalID(b []byte) pgtype.UUID {
	id, err := uuid.FromBytes(b)
	if err != nil {
		return pgtype.UUID{}
	}
	return idOf(id)
}
