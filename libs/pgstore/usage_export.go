package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/policy"
)

// UsageRow is what was played in a time by whatever it is grouped by; what it is not grouped by is empty.
type UsageRow struct {
	// Day is nil where days are summed.
	Day      *time.Time
	Realm    string
	User     string
	Stream   string
	Node     string
	Sessions int64
	Seconds  int64
	Bytes    int64
	// Peak is the most at one moment; nil where it cannot be told from what is kept, which is
	// where rows are left out by another criterion than what they are grouped by.
	Peak *int64
}

// UsageFilter chooses what is summed; an empty text matches everything, but no realm means all realms without probes.
type UsageFilter struct {
	From, To                  time.Time // days, To excluded
	Realm, User, Stream, Node string
	// By is what is told apart besides the realm: "user", "stream", "node", "realm" for
	// nothing else, "" for all three.
	By string
	// Daily tells days apart.
	Daily bool
}

// peakKnown says whether the peaks that are kept are those of the rows that the filter gives.
func (f *UsageFilter) peakKnown() bool {
	return f.By == "" || (f.User == "" || f.By == "user") && (f.Stream == "" || f.By == "stream") && (f.Node == "" || f.By == "node")
}

// The order is the bytes': the same on every server.
const usageSQL = `
WITH summed AS MATERIALIZED (
  SELECT CASE WHEN @daily THEN day END AS day, realm,
         CASE WHEN @by IN ('', 'user') THEN user_id ELSE '' END AS user_id,
         CASE WHEN @by IN ('', 'stream') THEN stream ELSE '' END AS stream,
         CASE WHEN @by IN ('', 'node') THEN node ELSE '' END AS node,
         sum(sessions)::bigint AS sessions, round(sum(ms) / 1000.0)::bigint AS seconds, sum(bytes)::bigint AS bytes, max(peak) AS peak
    FROM usher.usage_day
   WHERE day >= @from::date AND day < @to::date
     AND CASE WHEN @realm = '' THEN realm <> @probes ELSE realm = @realm END
     AND (@user = '' OR user_id = @user)
     AND (@stream = '' OR stream = @stream)
     AND (@node = '' OR node = @node)
   GROUP BY 1, 2, 3, 4, 5
), peaks AS MATERIALIZED (
  SELECT CASE WHEN @daily THEN day END AS day, realm, name, max(peak) AS peak
    FROM usher.usage_peak
   WHERE @by <> '' AND day >= @from::date AND day < @to::date AND kind = @by
   GROUP BY 1, 2, 3
)
SELECT s.day, s.realm, s.user_id, s.stream, s.node, s.sessions, s.seconds, s.bytes,
       CASE WHEN @by = '' THEN s.peak WHEN @known THEN p.peak END
  FROM summed s
  LEFT JOIN peaks p ON p.day IS NOT DISTINCT FROM s.day AND p.realm = s.realm
    AND p.name = CASE @by WHEN 'user' THEN s.user_id WHEN 'stream' THEN s.stream WHEN 'node' THEN s.node ELSE '' END
 ORDER BY s.day, s.realm COLLATE "C", s.user_id COLLATE "C", s.stream COLLATE "C", s.node COLLATE "C"`

// Usage gives each row to do, in a stable order and as they come from the server; do's error ends it.
func (s *Store) Usage(ctx context.Context, f UsageFilter, do func(*UsageRow) error) error {
	rows, err := s.pool.Query(ctx, usageSQL, pgx.NamedArgs{
		"from": f.From, "to": f.To, "realm": f.Realm, "user": f.User, "stream": f.Stream, "node": f.Node,
		"by": f.By, "daily": f.Daily, "known": f.peakKnown(), "probes": policy.RealmProbes,
	})
	if err != nil {
		return fmt.Errorf("reading usage: %w", unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var r UsageRow
		if err := rows.Scan(&r.Day, &r.Realm, &r.User, &r.Stream, &r.Node, &r.Sessions, &r.Seconds, &r.Bytes, &r.Peak); err != nil {
			return fmt.Errorf("reading usage: %w", err)
		}
		if err := do(&r); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading usage: %w", unavailable(err))
	}
	return nil
}
