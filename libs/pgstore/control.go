package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

const killSQL = `
SELECT kind, ord, decision_id, outcome, reason, realm, user_id, session_id, live, repeated, closed, holders,
       outbox, key, subject, stream, device, node, bar_ms, bar_device, at
  FROM usher.kill(@session, @bar_ms)`

// KillSession ends a live session at an operator's word: its seat is free, nobody may reopen it for bar
// or its lease, whichever is longer, and the edges are told through the outbox. It returns nil
// without an error when the session is not live.
func (s *Store) KillSession(ctx context.Context, id uuid.UUID, bar time.Duration) (*admission.Ended, error) {
	rows, err := s.pool.Query(ctx, killSQL, pgx.NamedArgs{"session": idOf(id), "bar_ms": bar.Milliseconds()})
	if err != nil {
		return nil, fmt.Errorf("killing session %s: %w", id, unavailable(err))
	}
	var a answer
	var ended *admission.Ended
	_, err = pgx.ForEachRow(rows, a.targets(), func() error {
		e := a.ended()
		ended = &e
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("killing session %s: %w", id, unavailable(err))
	}
	return ended, nil
}

const outboxSQL = `
SELECT id, at, session_id, key, subject, realm, user_id, stream, device, node, reason, bar_ms, bar_device
  FROM usher.outbox
 WHERE at <= clock_timestamp() - @age::interval
 ORDER BY id
 LIMIT @max`

// Outbox reads up to limit messages for the edges that have waited for at least olderThan, oldest first.
func (s *Store) Outbox(ctx context.Context, olderThan time.Duration, limit int) ([]admission.Ended, error) {
	rows, err := s.pool.Query(ctx, outboxSQL, pgx.NamedArgs{"age": olderThan, "max": limit})
	if err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (admission.Ended, error) {
		var e admission.Ended
		var session, key, subject pgtype.UUID
		var user *string
		var barMillis int64
		err := row.Scan(&e.Outbox, &e.At, &session, &key, &subject, &e.Realm, &user, &e.Stream, &e.Device, &e.Node, &e.Reason, &barMillis, &e.BarDevice)
		e.Session, e.Key, e.Subject = session.Bytes, access.Key(key.Bytes), access.Key(subject.Bytes)
		if user != nil {
			e.User = *user
		}
		e.Bar = time.Duration(barMillis) * time.Millisecond
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", unavailable(err))
	}
	return all, nil
}

const publishedSQL = `
DELETE FROM usher.outbox
 WHERE id = ANY (@ids)`

// Published removes messages that every edge can now read from the control stream.
func (s *Store) Published(ctx context.Context, ids []int64) error {
	if _, err := s.pool.Exec(ctx, publishedSQL, pgx.NamedArgs{"ids": ids}); err != nil {
		return fmt.Errorf("clearing the outbox: %w", unavailable(err))
	}
	return nil
}
