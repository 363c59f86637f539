package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
)

// DecisionRow is one row of the view usher.decisions. Steps are nil once their
// retention is over, and where the list leaves them out.
type DecisionRow struct {
	ID             uuid.UUID     `json:"decision_id"`
	At             time.Time     `json:"at"`
	Region         string        `json:"region"`
	Edge           string        `json:"edge"`
	Node           string        `json:"node"`
	Caller         string        `json:"caller"`
	Stream         string        `json:"stream"`
	Realm          string        `json:"realm"`
	User           *string       `json:"user_id"`
	IP             *netip.Addr   `json:"ip"`
	Outcome        string        `json:"outcome"`
	Would          *string       `json:"would"`
	WouldReason    *string       `json:"would_reason"`
	WouldRule      *string       `json:"would_rule"`
	Reason         string        `json:"reason"`
	PolicyRevision int64         `json:"policy_revision"`
	Session        *uuid.UUID    `json:"session_id"`
	TraceID        *string       `json:"trace_id"`
	DurationMicros int64         `json:"duration_us"`
	Repeats        int64         `json:"repeats"`
	Steps          []access.Step `json:"steps,omitempty"`
}

// DecisionFilter chooses decisions; a zero field matches everything.
type DecisionFilter struct {
	Realm, User, Stream, Node, Outcome string
	IP                                 netip.Addr
	// Session whose decisions are meant, uuid.Nil for all.
	Session uuid.UUID
	Since   time.Time
	// Limit of rows, DefaultRows if 0.
	Limit int
}

// The table, not the view: a list has no use for the steps, which are wide.
const decisionsSQL = `
SELECT decision_id, at, region, edge, node, caller, stream, realm, user_id, ip, outcome, would, would_reason, would_rule, reason,
       policy_revision, session_id, replace(trace_id::text, '-', ''), duration_us, repeats, NULL::jsonb
  FROM usher.decision
 WHERE at >= @since
   AND (@realm::text IS NULL OR realm = @realm)
   AND (@user::text IS NULL OR user_id = @user)
   AND (@stream::text IS NULL OR stream = @stream)
   AND (@node::text IS NULL OR node = @node)
   AND (@outcome::text IS NULL OR outcome = @outcome)
   AND (@ip::inet IS NULL OR ip = @ip)
   AND (@session::uuid IS NULL OR session_id = @session)
 ORDER BY at DESC, decision_id DESC
 LIMIT @max`

// Decisions lists decisions since a time, the newest first, without their steps.
func (s *Store) Decisions(ctx context.Context, f DecisionFilter) ([]DecisionRow, error) {
	rows, err := s.pool.Query(ctx, decisionsSQL, pgx.NamedArgs{
		"since": f.Since, "realm": some(f.Realm), "user": some(f.User), "stream": some(f.Stream), "node": some(f.Node),
		"outcome": some(f.Outcome), "ip": addrOf(f.IP), "session": idOf(f.Session), "max": rowLimit(f.Limit),
	})
	if err != nil {
		return nil, fmt.Errorf("listing decisions: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DecisionRow])
	if err != nil {
		return nil, fmt.Errorf("listing decisions: %w", unavailable(err))
	}
	return all, nil
}

const decisionSQL = `
SELECT decision_id, at, region, edge, node, caller, stream, realm, user_id, ip, outcome, would, would_reason, would_rule, reason,
       policy_revision, session_id, trace_id, duration_us, repeats, steps
  FROM usher.decisions
 WHERE at >= @from
   AND at < @until
   AND decision_id = @id`

// Decision is one decision with its steps, nil if there is none. The id's own time leads
// to its partition.
func (s *Store) Decision(ctx context.Context, id uuid.UUID) (*DecisionRow, error) {
	if id.Version() != 7 {
		return nil, nil
	}
	sec, nsec := id.Time().UnixTime()
	at := time.Unix(sec, nsec).UTC().Truncate(time.Millisecond)
	rows, err := s.pool.Query(ctx, decisionSQL, pgx.NamedArgs{"from": at, "until": at.Add(time.Millisecond), "id": idOf(id)})
	if err != nil {
		return nil, fmt.Errorf("reading decision %s: %w", id, unavailable(err))
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[DecisionRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading decision %s: %w", id, unavailable(err))
	}
	return &row, nil
}
