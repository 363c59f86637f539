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

// NodeSeat is a seat that is held at a node.
type NodeSeat struct {
	Session uuid.UUID
	Key     access.Key
	// Silent says that nobody has shown life since the time that was asked for.
	Silent bool
}

const nodeSeatsSQL = `
SELECT session_id, key, last_seen_at < clock_timestamp() - @age_ms::bigint * interval '1 millisecond'
  FROM usher.seat
 WHERE node = @node`

// NodeSeats are all seats that are held at a node. It reads the whole table of seats, so that it is for
// what happens once in some minutes.
func (s *Store) NodeSeats(ctx context.Context, node string, age time.Duration) ([]NodeSeat, error) {
	rows, err := s.pool.Query(ctx, nodeSeatsSQL, pgx.NamedArgs{"node": node, "age_ms": age.Milliseconds()})
	if err != nil {
		return nil, fmt.Errorf("reading a node's seats: %w", unavailable(err))
	}
	var list []NodeSeat
	var id, key pgtype.UUID
	var silent bool
	_, err = pgx.ForEachRow(rows, []any{&id, &key, &silent}, func() error {
		list = append(list, NodeSeat{Session: id.Bytes, Key: key.Bytes, Silent: silent})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading a node's seats: %w", unavailable(err))
	}
	return list, nil
}
