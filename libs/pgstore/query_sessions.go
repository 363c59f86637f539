package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// DefaultRows is how many rows a query gives when its filter names no limit.
const DefaultRows = 100

// SessionRow is one row of the view usher.sessions. ClosedAt is nil while it is live.
type SessionRow struct {
	ID          uuid.UUID   `json:"session_id"`
	Realm       string      `json:"realm"`
	User        *string     `json:"user_id"`
	Stream      string      `json:"stream"`
	Node        string      `json:"node"`
	Caller      string      `json:"caller"`
	Region      string      `json:"region"`
	IP          *netip.Addr `json:"ip"`
	UserAgent   string      `json:"user_agent"`
	Country     *string     `json:"country"`
	OpenedAt    time.Time   `json:"opened_at"`
	LastSeenAt  time.Time   `json:"last_seen_at"`
	ClosedAt    *time.Time  `json:"closed_at"`
	CloseReason *string     `json:"close_reason"`
	Edge        string      `json:"edge"`
	Device      string      `json:"device"`
	Decision    uuid.UUID   `json:"decision_id"`
	Requests    int64       `json:"requests"`
	Bytes       int64       `json:"bytes"`
	Rechecks    int32       `json:"rechecks"`
	ExpiresAt   *time.Time  `json:"expires_at"`
	// CloseDetail is the node's own word for the end.
	CloseDetail *string `json:"close_detail"`
	// PlayingMS is how long it played, in the node's own word.
	PlayingMS *int64 `json:"playing_ms"`
	// Seconds from its opening to the last that is known of it.
	Seconds int64 `json:"seconds"`
}

// SessionFilter chooses sessions; a zero field matches everything.
type SessionFilter struct {
	Realm, User, Stream, Node string
	IP                        netip.Addr
	// Closed includes those that ended after Since; without it, live ones only.
	Closed bool
	Since  time.Time
	// Limit of rows, DefaultRows if 0.
	Limit int
}

const sessionColumns = `session_id, realm, user_id, stream, node, caller, region, ip, user_agent, country,
       opened_at, last_seen_at, closed_at, close_reason, edge, device, decision_id, requests, bytes, rechecks, expires_at,
       close_detail, playing_ms, seconds`

const sessionsSQL = `
SELECT ` + sessionColumns + `
  FROM usher.sessions
 WHERE (closed_at IS NULL OR (@closed::boolean AND closed_at >= @since))
   AND (@realm::text IS NULL OR realm = @realm)
   AND (@user::text IS NULL OR user_id = @user)
   AND (@stream::text IS NULL OR stream = @stream)
   AND (@node::text IS NULL OR node = @node)
   AND (@ip::inet IS NULL OR ip = @ip)
 ORDER BY opened_at DESC, session_id
 LIMIT @max`

// Sessions lists sessions, the newest first.
func (s *Store) Sessions(ctx context.Context, f SessionFilter) ([]SessionRow, error) {
	rows, err := s.pool.Query(ctx, sessionsSQL, pgx.NamedArgs{
		"closed": f.Closed, "since": f.Since, "realm": some(f.Realm), "user": some(f.User),
		"stream": some(f.Stream), "node": some(f.Node), "ip": addrOf(f.IP), "max": rowLimit(f.Limit),
	})
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SessionRow])
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", unavailable(err))
	}
	return all, nil
}

const sessionSQL = `
SELECT ` + sessionColumns + `
  FROM usher.sessions
 WHERE session_id = @session
 ORDER BY closed_at DESC NULLS FIRST
 LIMIT 1`

// Session is one session, live or closed, nil if there is none.
func (s *Store) Session(ctx context.Context, id uuid.UUID) (*SessionRow, error) {
	rows, err := s.pool.Query(ctx, sessionSQL, pgx.NamedArgs{"session": idOf(id)})
	if err != nil {
		return nil, fmt.Errorf("reading session %s: %w", id, unavailable(err))
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[SessionRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading session %s: %w", id, unavailable(err))
	}
	return &row, nil
}

func rowLimit(n int) int {
	if n <= 0 {
		return DefaultRows
	}
	return n
}

// some is nil, NULL, for a filter that was not given.
func some(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
