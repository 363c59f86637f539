package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

var (
	// ErrPlaying means that a user holds seats: end his sessions before he is forgotten.
	ErrPlaying = errors.New("the user plays now")
	// ErrOrdered means that a ban or an override on a user is in force: it cannot hold without his name.
	ErrOrdered = errors.New("a ban or an override on the user is in force")
)

// forgottenFor is how long what is still under way is recorded without a user who was forgotten: the journal keeps
// three days, and a region may have been cut off for as long as partitions reach back.
const forgottenFor = 14 * 24 * time.Hour

// personal is what one table knows of a user. Every table with a user's name is in this list: a test holds the
// schema against it.
type personal struct {
	table string
	// export gives a row's JSON each, without secrets; "" where another table's says it.
	export string
	// forget takes the user out.
	forget string
}

// The order is that of forgetting: steps are found through their decisions.
func personals() []personal {
	return []personal{
		{"subscriber", `SELECT to_json(s) FROM usher.subscribers s WHERE realm = @realm AND user_id = @user`,
			`DELETE FROM usher.subscriber WHERE realm = @realm AND user_id = @user`},
		{"subscriber_package", "", `DELETE FROM usher.subscriber_package WHERE realm = @realm AND user_id = @user`},
		{"middleware_grant", `SELECT json_build_object('check', check_name, 'stream', stream, 'ip', ip, 'sessions', sessions, 'granted_at', granted_at, 'expires_at', expires_at)
   FROM usher.middleware_grant WHERE realm = @realm AND user_id = @user ORDER BY granted_at`,
			`DELETE FROM usher.middleware_grant WHERE realm = @realm AND user_id = @user`},
		{"known", `SELECT json_build_object('check', check_name, 'allowed', allowed, 'sessions', sessions, 'at', at) FROM usher.known WHERE realm IN (@realm, '') AND user_id = @user ORDER BY at`,
			`DELETE FROM usher.known WHERE realm IN (@realm, '') AND user_id = @user`},
		{"claim", `SELECT json_build_object('value', value, 'at', at) FROM usher.claim WHERE value = @user ORDER BY at`,
			`DELETE FROM usher.claim WHERE value = @user`},
		{"directive", `SELECT json_build_object('id', id, 'kind', kind, 'action', action, 'limit', "limit", 'network', network, 'stream', stream, 'node', node, 'check', check_name,
          'device', device, 'at', at, 'until', until, 'reason', reason, 'revoked_at', revoked_at) FROM usher.directive WHERE realm = @realm AND user_id = @user ORDER BY at`,
			`UPDATE usher.directive SET user_id = 'forgotten', network = NULL, device = NULL, token = NULL, reason = 'forgotten', revoked_reason = 'forgotten' WHERE realm = @realm AND user_id = @user`},
		{"outbox", "", `UPDATE usher.outbox SET user_id = NULL WHERE realm = @realm AND user_id = @user`},
		{"decision_steps", "", `DELETE FROM usher.decision_steps s USING usher.decision d
  WHERE d.realm = @realm AND d.user_id = @user AND s.at = d.at AND s.decision_id = d.decision_id`},
		{"decision", `SELECT to_json(d) FROM usher.decisions d WHERE realm = @realm AND user_id = @user ORDER BY at, decision_id`,
			`UPDATE usher.decision SET user_id = NULL, ip = NULL WHERE realm = @realm AND user_id = @user`},
		{"seat", "", ""}, // a user with seats is not forgotten
		{"session_history", `SELECT to_json(s) FROM usher.sessions s WHERE realm = @realm AND user_id = @user ORDER BY opened_at, session_id`,
			`UPDATE usher.session_history SET user_id = NULL, ip = NULL, device = '', user_agent = '', key = NULL WHERE realm = @realm AND user_id = @user`},
		{"usage_due", "", `UPDATE usher.usage_due SET user_id = '' WHERE realm = @realm AND user_id = @user`},
		// What streams were watched stays true, by nobody.
		{"usage_day", `SELECT to_json(u) FROM usher.usage u WHERE realm = @realm AND user_id = @user ORDER BY day, stream, node`,
			`WITH gone AS (DELETE FROM usher.usage_day WHERE realm = @realm AND user_id = @user RETURNING *)
INSERT INTO usher.usage_day AS t (day, realm, user_id, stream, node, sessions, ms, playing_ms, bytes, peak)
SELECT day, realm, '', stream, node, sessions, ms, playing_ms, bytes, peak FROM gone ORDER BY day, stream, node
    ON CONFLICT (day, realm, user_id, stream, node) DO UPDATE SET sessions = t.sessions + EXCLUDED.sessions, ms = t.ms + EXCLUDED.ms,
       playing_ms = t.playing_ms + EXCLUDED.playing_ms, bytes = t.bytes + EXCLUDED.bytes, peak = greatest(t.peak, EXCLUDED.peak)`},
		{"usage_peak", `SELECT json_build_object('day', day, 'peak', peak) FROM usher.usage_peak WHERE kind = 'user' AND realm = @realm AND name = @user ORDER BY day`,
			`DELETE FROM usher.usage_peak WHERE kind = 'user' AND realm = @realm AND name = @user`},
	}
}

// ExportUser gives everything that is known of a user to do, table by table, as of one moment.
func (s *Store) ExportUser(ctx context.Context, realm, user string, do func(table string, row json.RawMessage) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, p := range personals() {
			if p.export == "" {
				continue
			}
			rows, err := tx.Query(ctx, p.export, pgx.NamedArgs{"realm": realm, "user": user})
			if err != nil {
				return fmt.Errorf("%s: %w", p.table, unavailable(err))
			}
			var row json.RawMessage
			_, err = pgx.ForEachRow(rows, []any{&row}, func() error { return do(p.table, row) })
			if err != nil {
				return fmt.Errorf("%s: %w", p.table, unavailable(err))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("exporting a user: %w", err)
	}
	return nil
}

// Forgotten is what forgetting a user changed.
type Forgotten struct {
	// Print is the user's fingerprint: it stands in the audit.
	Print uuid.UUID `json:"fingerprint"`
	// Until is how long what was under way is still recorded without him.
	Until  time.Time       `json:"until"`
	Tables []ForgottenRows `json:"tables"`
}

// ForgottenRows is how many rows of a table were removed or changed.
type ForgottenRows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

const (
	forgetPlaysSQL  = `SELECT EXISTS (SELECT 1 FROM usher.seat WHERE realm = @realm AND user_id = @user)`
	forgetOrdersSQL = `
SELECT EXISTS (SELECT 1 FROM usher.directive WHERE realm = @realm AND user_id = @user AND revoked_at IS NULL AND (until IS NULL OR until > now()))`

	forgetSQL = `
INSERT INTO usher.forgotten AS f (who, at, until)
SELECT usher.user_print(@realm, @user), now(), now() + @for::interval
    ON CONFLICT (who) DO UPDATE SET at = EXCLUDED.at, until = EXCLUDED.until
RETURNING who, until`

	auditSQL = `INSERT INTO usher.audit (action, author, detail) VALUES (@action, @author, @detail)`
)

// Forget takes a user out of every table, in one transaction, and notes his fingerprint, so that what is still under
// way in journals is recorded without him. Sums of streams stay. Errors: ErrPlaying, ErrOrdered; nothing has changed then.
func (s *Store) Forget(ctx context.Context, realm, user, author string) (Forgotten, error) {
	var done Forgotten
	args := pgx.NamedArgs{"realm": realm, "user": user, "for": forgottenFor}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		done = Forgotten{}
		// Whoever counts meanwhile would write the user's rows again.
		if _, err := tx.Exec(ctx, "SELECT usher.lock_usage()"); err != nil {
			return err
		}
		var plays, ordered bool
		if err := tx.QueryRow(ctx, forgetPlaysSQL, args).Scan(&plays); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, forgetOrdersSQL, args).Scan(&ordered); err != nil {
			return err
		}
		switch {
		case plays:
			return ErrPlaying
		case ordered:
			return ErrOrdered
		}
		var who pgtype.UUID
		if err := tx.QueryRow(ctx, forgetSQL, args).Scan(&who, &done.Until); err != nil {
			return err
		}
		done.Print = who.Bytes
		return forgetRows(ctx, tx, args, author, &done)
	})
	if err != nil {
		return Forgotten{}, fmt.Errorf("forgetting a user: %w", forgetError(err))
	}
	return done, nil
}

func forgetRows(ctx context.Context, tx pgx.Tx, args pgx.NamedArgs, author string, done *Forgotten) error {
	for _, p := range personals() {
		if p.forget == "" {
			continue
		}
		tag, err := tx.Exec(ctx, p.forget, args)
		if err != nil {
			return fmt.Errorf("%s: %w", p.table, err)
		}
		if n := tag.RowsAffected(); n > 0 {
			done.Tables = append(done.Tables, ForgottenRows{p.table, n})
		}
	}
	_, err := tx.Exec(ctx, auditSQL, pgx.NamedArgs{"action": "forget user", "author": author, "detail": done})
	return err
}

func forgetError(err error) error {
	if errors.Is(err, ErrPlaying) || errors.Is(err, ErrOrdered) {
		return err
	}
	return unavailable(err)
}
