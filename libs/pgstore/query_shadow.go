package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ShadowRow is what a policy that is tried out would have done, of one kind, by one rule at one node.
type ShadowRow struct {
	// Outcome and Reason are what viewers got, Would and WouldReason what the policy would have said.
	Outcome     string  `json:"outcome"`
	Reason      string  `json:"reason"`
	Would       string  `json:"would"`
	WouldReason *string `json:"would_reason"`
	Rule        *string `json:"rule"`
	Node        string  `json:"node"`
	// Decisions counts answers, Rows their audit rows, Viewers accounts (addresses of those without).
	Decisions int64 `json:"decisions"`
	Rows      int64 `json:"rows"`
	Viewers   int64 `json:"viewers"`
	Streams   int64 `json:"streams"`
	// TopStream is the one with most rows.
	TopStream string      `json:"top_stream"`
	First     time.Time   `json:"first"`
	Last      time.Time   `json:"last"`
	Examples  []uuid.UUID `json:"examples"` // the newest, up to three
}

// Differs says whether the policy would have done something else than was done.
func (r *ShadowRow) Differs() bool {
	return r.Outcome != r.Would || r.WouldReason != nil && *r.WouldReason == "evict_oldest"
}

const shadowSQL = `
SELECT outcome, reason, would, would_reason, would_rule, node, sum(1 + repeats)::bigint, count(*),
       count(DISTINCT COALESCE(realm || '/' || user_id, host(ip))), count(DISTINCT stream),
       mode() WITHIN GROUP (ORDER BY stream), min(at), max(at), (array_agg(decision_id ORDER BY at DESC))[1:3]
  FROM usher.decision
 WHERE at >= @since
   AND would IS NOT NULL
 GROUP BY outcome, reason, would, would_reason, would_rule, node
 ORDER BY 7 DESC, outcome, would, node, would_rule
 LIMIT @max`

// Shadow tells what a policy that is tried out would have done since a time, the most frequent first.
func (s *Store) Shadow(ctx context.Context, since time.Time, limit int) ([]ShadowRow, error) {
	rows, err := s.pool.Query(ctx, shadowSQL, pgx.NamedArgs{"since": since, "max": rowLimit(limit)})
	if err != nil {
		return nil, fmt.Errorf("reading what would have been: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ShadowRow])
	if err != nil {
		return nil, fmt.Errorf("reading what would have been: %w", unavailable(err))
	}
	return all, nil
}
