package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// NodeShare is what one node asked since a time about the viewers that are meant.
type NodeShare struct {
	Node   string `json:"node"`
	Caller string `json:"caller"`
	Edge   string `json:"edge"`
	// Asked counts questions, those that were answered by an earlier row included.
	Asked   int64 `json:"asked"`
	Allowed int64 `json:"allowed"`
	// LastAsked is the last question about them, nil if there was none; LastAny is
	// the node's last question about anybody.
	LastAsked *time.Time `json:"last_asked"`
	LastAny   time.Time  `json:"last_any"`
}

// ReasonShare is how often a question ended for one reason at one check.
type ReasonShare struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	// Check is the step that decided, such as "check portal"; "" where steps are gone.
	Check string `json:"check,omitempty"`
	// Text is what that step said the last time, without secrets.
	Text  string    `json:"text,omitempty"`
	Count int64     `json:"count"`
	Last  time.Time `json:"last"`
}

// Every node that asked anything in the time is named: one that never asks about this
// viewer, while it asks about others, is an answer of its own.
const nodeSharesSQL = `
SELECT node, max(caller), max(edge),
       COALESCE(sum(1 + repeats) FILTER (WHERE meant), 0)::bigint,
       COALESCE(sum(1 + repeats) FILTER (WHERE meant AND outcome = 'allow'), 0)::bigint,
       max(at) FILTER (WHERE meant), max(at)
  FROM (SELECT *, (@realm::text IS NULL OR realm = @realm)
                  AND (@user::text IS NULL OR user_id = @user)
                  AND (@stream::text IS NULL OR stream = @stream)
                  AND (@ip::inet IS NULL OR ip = @ip) AS meant
          FROM usher.decision
         WHERE at >= @since) d
 GROUP BY node
 ORDER BY 4 DESC, node`

// NodeShares tells for each node that asked since f.Since what it asked about f's viewers.
func (s *Store) NodeShares(ctx context.Context, f DecisionFilter) ([]NodeShare, error) {
	rows, err := s.pool.Query(ctx, nodeSharesSQL, whyArgs(f))
	if err != nil {
		return nil, fmt.Errorf("counting questions by node: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[NodeShare])
	if err != nil {
		return nil, fmt.Errorf("counting questions by node: %w", unavailable(err))
	}
	return all, nil
}

// The step that decided is the last one with the outcome's own result; a question that the
// fail mode answered names the check that was away.
const reasonSharesSQL = `
SELECT d.outcome, d.reason, COALESCE(x.name, ''),
       COALESCE((array_agg(x.text ORDER BY d.at DESC))[1], ''),
       sum(1 + d.repeats)::bigint, max(d.at)
  FROM usher.decision d
  LEFT JOIN usher.decision_steps s ON s.at = d.at AND s.decision_id = d.decision_id
  LEFT JOIN LATERAL (
       SELECT e.step ->> 'n' AS name, e.step ->> 't' AS text
         FROM json_array_elements(s.steps::json) WITH ORDINALITY AS e(step, n)
        WHERE e.step ->> 'r' IN (CASE d.outcome WHEN 'allow' THEN 'allow' ELSE 'deny' END, 'unavailable')
        ORDER BY e.step ->> 'r' = 'unavailable', e.n DESC
        LIMIT 1) x ON true
 WHERE d.at >= @since
   AND (@realm::text IS NULL OR d.realm = @realm)
   AND (@user::text IS NULL OR d.user_id = @user)
   AND (@stream::text IS NULL OR d.stream = @stream)
   AND (@ip::inet IS NULL OR d.ip = @ip)
 GROUP BY d.outcome, d.reason, x.name
 ORDER BY 5 DESC`

// ReasonShares tells how the questions about f's viewers ended since f.Since.
func (s *Store) ReasonShares(ctx context.Context, f DecisionFilter) ([]ReasonShare, error) {
	rows, err := s.pool.Query(ctx, reasonSharesSQL, whyArgs(f))
	if err != nil {
		return nil, fmt.Errorf("counting reasons: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ReasonShare])
	if err != nil {
		return nil, fmt.Errorf("counting reasons: %w", unavailable(err))
	}
	return all, nil
}

const lastDecisionSQL = `
SELECT max(at)
  FROM usher.decision
 WHERE at >= @since
   AND (@realm::text IS NULL OR realm = @realm)
   AND (@user::text IS NULL OR user_id = @user)
   AND (@stream::text IS NULL OR stream = @stream)
   AND (@ip::inet IS NULL OR ip = @ip)`

// LastAsked is when any node last asked about f's viewers, looking back to f.Since; nil if
// none did.
func (s *Store) LastAsked(ctx context.Context, f DecisionFilter) (*time.Time, error) {
	var at *time.Time
	if err := s.pool.QueryRow(ctx, lastDecisionSQL, whyArgs(f)).Scan(&at); err != nil {
		return nil, fmt.Errorf("looking for the last question: %w", unavailable(err))
	}
	return at, nil
}

func whyArgs(f DecisionFilter) pgx.NamedArgs {
	return pgx.NamedArgs{
		"since": f.Since, "realm": some(f.Realm), "user": some(f.User), "stream": some(f.Stream), "ip": addrOf(f.IP),
	}
}
