package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// A close that closed nothing, since somebody had seen life: the session goes on with what is known of it.
	liveTotalsSQL = `
UPDATE usher.seat
   SET bytes = greatest(bytes, @bytes), country = COALESCE(country, @country)
 WHERE session_id = @session AND node = @node`

	// Totals only rise, and the end only moves to the earlier one that the node tells, where nobody but time itself has
	// ended the session and nobody saw life after it. So twice, late or in any order is the same.
	closedTotalsSQL = `
UPDATE usher.session_history
   SET bytes = greatest(bytes, @bytes),
       playing_ms = greatest(playing_ms, @playing),
       country = COALESCE(country, @country),
       close_detail = CASE WHEN true_end THEN COALESCE(@detail, close_detail) ELSE COALESCE(close_detail, @detail) END,
       close_reason = CASE WHEN true_end THEN 'stopped' ELSE close_reason END,
       closed_at = CASE WHEN true_end THEN @ended ELSE closed_at END
  FROM (SELECT h.closed_at AS day, h.session_id AS id,
               COALESCE(h.close_reason IN ('idle', 'expired', 'stopped') AND @ended < h.closed_at
                 AND @ended >= greatest(h.opened_at, h.last_seen_at - interval '500 milliseconds')
                 AND @ended > h.closed_at - interval '1 day', false) AS true_end
          FROM usher.session_history h
         WHERE h.session_id = @session AND h.node = @node AND h.closed_at > now() - interval '8 days'
         ORDER BY h.closed_at DESC
         LIMIT 1) x
 WHERE session_history.session_id = x.id AND session_history.closed_at = x.day`
)

// complete writes what a node said of a session that is over to its row.
func complete(ctx context.Context, tx pgx.Tx, t *usherv1.SessionTotals) error {
	id, err := uuid.FromBytes(t.GetSessionId())
	if err != nil || id == uuid.Nil {
		return fmt.Errorf("%w: totals of no session", admission.ErrBadItem)
	}
	args := pgx.NamedArgs{
		"session": idOf(id), "node": t.GetNode(), "bytes": t.GetBytes(), "playing": some64(t.GetPlayingMs()),
		"country": textOf(t.GetCountry()), "detail": textOf(t.GetDetail()), "ended": (*time.Time)(nil),
	}
	if ms := t.GetEndedUnixMs(); ms > 0 {
		at := time.UnixMilli(ms).UTC()
		args["ended"] = &at
	}
	tag, err := tx.Exec(ctx, closedTotalsSQL, args)
	if err != nil || tag.RowsAffected() > 0 {
		return err
	}
	_, err = tx.Exec(ctx, liveTotalsSQL, args)
	return err
}

// some64 is nil for nothing.
func some64(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}
