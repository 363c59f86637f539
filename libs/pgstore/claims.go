package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/maypok86/otter/v2"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
)

// Claims is decide.Claims: the first value seen with a name stands, for every worker.
type Claims struct {
	store *Store
	seen  *otter.Cache[access.Key, string]
}

var _ decide.Claims = (*Claims)(nil)

// Claims are kept in this store.
func (s *Store) Claims() *Claims {
	// A claim never changes, so that what has been read once may be believed for ever.
	return &Claims{store: s, seen: otter.Must(&otter.Options[access.Key, string]{MaximumSize: claimsCached})}
}

// claimsCached bounds the claims kept in memory: about 100 bytes each.
const claimsCached = 200_000

const claimSQL = `
WITH mine AS (
  INSERT INTO usher.claim (name, value)
  VALUES (@name, @value)
  ON CONFLICT DO NOTHING
  RETURNING value
)
SELECT value FROM mine
UNION ALL
SELECT value FROM usher.claim WHERE name = @name
LIMIT 1`

// First stores value under name unless there is one already, and returns the one that stands.
func (c *Claims) First(ctx context.Context, name access.Key, value string) (string, error) {
	if first, ok := c.seen.GetIfPresent(name); ok {
		return first, nil
	}
	args := pgx.NamedArgs{"name": idOf(name), "value": value}
	var first string
	for range 2 {
		err := c.store.pool.QueryRow(ctx, claimSQL, args).Scan(&first)
		// No row: another worker's insert committed after this statement's snapshot. The next one sees it.
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("claiming a token: %w", unavailable(err))
		}
		c.seen.Set(name, first)
		return first, nil
	}
	return "", fmt.Errorf("claiming a token: %w", pgx.ErrNoRows)
}
