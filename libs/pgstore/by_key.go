package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
)

// KeySign is what a node says of a session that its edge knows by the key alone.
type KeySign struct {
	Key  access.Key
	Node string
	// Age is how long ago it was so. Opened is how long ago the node opened the session, 0 if not said.
	Age, Opened time.Duration
	// Returning says that the node gives its ids again: the session must have been opened
	// before the sign, and not long after the node says.
	Returning bool
}

// KeyedSession is the session of a KeySign: the live one, else the last one that was closed under
// the key within a day. Nil if there is none.
type KeyedSession struct {
	ID uuid.UUID
	// Closed is why it was closed, "" while it is live.
	Closed access.CloseReason
}

// byKeySQL looks for seats first; what was closed is read for the others alone. Ten seconds are what a node's opening
// may lie before ours.
const byKeySQL = `
SELECT u.ord::integer - 1, f.session_id, f.closed
  FROM unnest(@keys::uuid[], @nodes::text[], @ages::bigint[], @opened::bigint[], @again::boolean[])
       WITH ORDINALITY AS u(key, node, age, opened, again, ord)
 CROSS JOIN LATERAL (SELECT
         CASE WHEN u.again THEN LEAST(
           clock_timestamp() - u.age * interval '1 millisecond',
           CASE WHEN u.opened > 0 THEN clock_timestamp() - u.opened * interval '1 millisecond' + interval '10 seconds' END)
         ELSE 'infinity'::timestamptz END AS latest) b
 CROSS JOIN LATERAL (
       SELECT s.session_id, ''::text AS closed, s.opened_at
         FROM usher.seat s
        WHERE s.key = u.key AND s.node = u.node AND s.opened_at <= b.latest
       UNION ALL
       (SELECT h.session_id, h.close_reason, h.opened_at
          FROM usher.session_history h
         WHERE h.key = u.key AND h.node = u.node AND h.opened_at <= b.latest
           AND h.closed_at > now() - interval '1 day'
         ORDER BY h.opened_at DESC
         LIMIT 1)
        ORDER BY opened_at DESC
        LIMIT 1) f`

// SessionsByKey finds the sessions that nodes speak of, in the order of the signs. A session of
// another node is never found.
func (s *Store) SessionsByKey(ctx context.Context, signs []KeySign) ([]*KeyedSession, error) {
	n := len(signs)
	keys, nodes, ages := make([]pgtype.UUID, n), make([]string, n), make([]int64, n)
	opened, again := make([]int64, n), make([]bool, n)
	for i, g := range signs {
		keys[i], nodes[i], again[i] = pgtype.UUID{Bytes: g.Key, Valid: true}, g.Node, g.Returning
		ages[i], opened[i] = g.Age.Milliseconds(), g.Opened.Milliseconds()
	}
	rows, err := s.pool.Query(ctx, byKeySQL, pgx.NamedArgs{
		"keys": keys, "nodes": nodes, "ages": ages, "opened": opened, "again": again})
	if err != nil {
		return nil, fmt.Errorf("looking for sessions by key: %w", unavailable(err))
	}
	out := make([]*KeyedSession, n)
	var ord int
	var id pgtype.UUID
	var closed string
	_, err = pgx.ForEachRow(rows, []any{&ord, &id, &closed}, func() error {
		out[ord] = &KeyedSession{ID: id.Bytes, Closed: access.CloseReason(closed)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for sessions by key: %w", unavailable(err))
	}
	return out, nil
}
