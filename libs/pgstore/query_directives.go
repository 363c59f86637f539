package pgstore

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
)

// DirectiveRow is a directive as it is stored. RevokedAt is nil while nobody has revoked it.
type DirectiveRow struct {
	directive.Directive
	RevokedAt                *time.Time
	RevokedBy, RevokedReason string
}

// InForce says whether the directive acts at that time.
func (r *DirectiveRow) InForce(now time.Time) bool { return r.RevokedAt == nil && r.Active(now) }

const directiveColumns = `id, kind, action, COALESCE("limit", 0), COALESCE(realm, ''), COALESCE(user_id, ''), network,
       COALESCE(stream, ''), COALESCE(node, ''), COALESCE(check_name, ''), COALESCE(device, ''), token, at, until, reason, author,
       revoked_at, COALESCE(revoked_by, ''), COALESCE(revoked_reason, '')`

const directivesSQL = `
SELECT ` + directiveColumns + `
  FROM usher.directive
 WHERE (@kind::text IS NULL OR kind = @kind)
   AND (@ended::boolean OR revoked_at IS NULL AND (until IS NULL OR until > clock_timestamp()))
 ORDER BY at DESC, id DESC
 LIMIT @max`

// DirectiveFilter chooses directives; a zero field matches everything.
type DirectiveFilter struct {
	Kind directive.Kind
	// Ended includes those that are over.
	Ended bool
	// Limit of rows, DefaultRows if 0.
	Limit int
}

// DirectiveRows lists directives, the newest first.
func (s *Store) DirectiveRows(ctx context.Context, f DirectiveFilter) ([]DirectiveRow, error) {
	return s.directives(ctx, "listing directives", directivesSQL, pgx.NamedArgs{
		"kind": some(string(f.Kind)), "ended": f.Ended, "max": rowLimit(f.Limit)})
}

// everyDirective is more than any operator has in force.
const everyDirective = 1 << 30

// Directives are all that are in force.
func (s *Store) Directives(ctx context.Context) ([]directive.Directive, error) {
	rows, err := s.DirectiveRows(ctx, DirectiveFilter{Limit: everyDirective})
	if err != nil {
		return nil, err
	}
	all := make([]directive.Directive, len(rows))
	for i := range rows {
		all[i] = rows[i].Directive
	}
	return all, nil
}

const untoldSQL = `
SELECT ` + directiveColumns + `
  FROM usher.directive
 WHERE told_at IS NULL
 ORDER BY at, id
 LIMIT @max`

// Untold are up to limit directives of whose latest state the edges and workers may not have heard.
func (s *Store) Untold(ctx context.Context, limit int) ([]DirectiveRow, error) {
	return s.directives(ctx, "reading untold directives", untoldSQL, pgx.NamedArgs{"max": limit})
}

const restateSQL = `
SELECT ` + directiveColumns + `
  FROM usher.directive
 WHERE revoked_at IS NULL AND (until IS NULL OR until > clock_timestamp())
    OR revoked_at > clock_timestamp() - @since::interval`

// Restated are all directives in force and those that were revoked within the last since: what the
// control stream should hold.
func (s *Store) Restated(ctx context.Context, since time.Duration) ([]DirectiveRow, error) {
	return s.directives(ctx, "reading directives", restateSQL, pgx.NamedArgs{"since": since})
}

const toldSQL = `
UPDATE usher.directive d
   SET told_at = clock_timestamp()
  FROM unnest(@ids::uuid[], @revoked::boolean[]) AS t(id, revoked)
 WHERE d.id = t.id AND (d.revoked_at IS NOT NULL) = t.revoked AND d.told_at IS NULL`

// Told notes that what stands in the rows was published. One that was revoked meanwhile stays untold.
func (s *Store) Told(ctx context.Context, rows []DirectiveRow) error {
	ids, revoked := make([]pgtype.UUID, len(rows)), make([]bool, len(rows))
	for i := range rows {
		ids[i], revoked[i] = idOf(rows[i].ID), rows[i].RevokedAt != nil
	}
	if _, err := s.pool.Exec(ctx, toldSQL, pgx.NamedArgs{"ids": ids, "revoked": revoked}); err != nil {
		return fmt.Errorf("noting told directives: %w", unavailable(err))
	}
	return nil
}

func (s *Store) directives(ctx context.Context, what, sql string, args pgx.NamedArgs) ([]DirectiveRow, error) {
	rows, err := s.pool.Query(ctx, sql, args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, unavailable(err))
	}
	all, err := pgx.CollectRows(rows, directiveRow)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, unavailable(err))
	}
	return all, nil
}

func directiveRow(row pgx.CollectableRow) (DirectiveRow, error) {
	var (
		r         DirectiveRow
		id, token pgtype.UUID
		network   *netip.Prefix
		until     *time.Time
	)
	err := row.Scan(&id, &r.Kind, &r.Action, &r.Limit, &r.Realm, &r.User, &network, &r.Stream, &r.Node, &r.Check, &r.Device, &token,
		&r.At, &until, &r.Reason, &r.Author, &r.RevokedAt, &r.RevokedBy, &r.RevokedReason)
	r.ID, r.Token, r.At = uuid.UUID(id.Bytes), access.Key(token.Bytes), r.At.UTC()
	if network != nil {
		r.Network = *network
	}
	if until != nil {
		r.Until = until.UTC()
	}
	return r, err
}
