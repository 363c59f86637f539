package pgstore

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
)

// The database's clock says what holds: those of workers differ. LIMIT bounds what a token that is used from
// everywhere may bring, and keeps each question on the index.
const findGrantsSQL = `
SELECT q.n, g.ip, g.check_name, g.realm, g.user_id, g.session_name, g.sessions, g.whole_session, g.archive,
       (EXTRACT(epoch FROM clock_timestamp() - g.granted_at) * 1e6)::bigint,
       (EXTRACT(epoch FROM g.expires_at - clock_timestamp()) * 1e6)::bigint,
       (EXTRACT(epoch FROM g.recheck_at - clock_timestamp()) * 1e6)::bigint
  FROM unnest(@who::uuid[], @streams::text[], @ips::inet[], @running::boolean[]) WITH ORDINALITY AS q(who, stream, ip, running, n)
 CROSS JOIN LATERAL (
       SELECT ip, check_name, realm, user_id, session_name, sessions, whole_session, archive, granted_at, expires_at, recheck_at
         FROM usher.middleware_grant
        WHERE who = q.who AND stream = q.stream AND (ip = q.ip OR q.running)
          AND (expires_at > clock_timestamp() OR (whole_session AND q.running))
        ORDER BY (ip = q.ip) DESC, expires_at DESC
        LIMIT 32) AS g`

func (g *Grants) read(ctx context.Context, qs []find) ([][]decide.Grant, error) {
	n := len(qs)
	who, streams, ips, running := make([][16]byte, n), make([]string, n), make([]netip.Addr, n), make([]bool, n)
	for i, q := range qs {
		who[i], streams[i], ips[i], running[i] = q.Who, q.Stream, addressed(q.IP), q.running
	}
	rows, err := g.store.pool.Query(ctx, findGrantsSQL, pgx.NamedArgs{"who": who, "streams": streams, "ips": ips, "running": running})
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([][]decide.Grant, n)
	now := time.Now()
	var i, age, left int64
	var recheck *int64
	var ip netip.Addr
	var archive string
	var one decide.Grant
	_, err = pgx.ForEachRow(rows, []any{&i, &ip, &one.Check, &one.Realm, &one.User, &one.SessionName, &one.Sessions, &one.Whole, &archive, &age, &left, &recheck}, func() error {
		q := qs[i-1]
		one.For = q.For
		if ip = ip.Unmap(); ip != addressed(q.IP) {
			one.IP = ip
		}
		one.At, one.Until, one.Recheck = now.Add(-micros(age)), now.Add(micros(left)), time.Time{}
		if recheck != nil {
			one.Recheck = now.Add(micros(*recheck))
		}
		one.Reach = reachOf(archive)
		out[i-1] = append(out[i-1], one)
		return nil
	})
	return out, unavailable(err)
}

// reachOf reads how far into the archive somebody may go. What a newer version wrote and this
// one does not understand opens nothing.
func reachOf(text string) *access.Reach {
	r, err := access.ParseReach(text)
	if err != nil {
		return access.None()
	}
	return r
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// addressed is an address for the table, which has no place for none.
func addressed(ip netip.Addr) netip.Addr {
	if ip.IsValid() {
		return ip
	}
	return netip.IPv6Unspecified()
}

// The commit need not wait for the disk: the viewer is answered after the ledger's commit, which does, and which carries
// everything before it in the same log to the disk with it. Other workers see the rows at once.
const keepGrantsSQL = `
WITH moved AS (
  DELETE FROM usher.middleware_grant AS g
   USING unnest(@from_who::uuid[], @from_streams::text[], @from_ips::inet[], @from_checks::text[]) AS m(who, stream, ip, check_name)
   WHERE g.who = m.who AND g.stream = m.stream AND g.ip = m.ip AND g.check_name = m.check_name
)
INSERT INTO usher.middleware_grant AS g (who, stream, ip, check_name, realm, user_id, session_name, sessions, whole_session, archive,
       granted_at, expires_at, recheck_at)
SELECT x.who, x.stream, x.ip, x.check_name, x.realm, x.user_id, x.session_name, x.sessions, x.whole_session, x.archive,
       clock_timestamp() - x.age_us * interval '1 microsecond', clock_timestamp() + x.left_us * interval '1 microsecond',
       clock_timestamp() + x.recheck_us * interval '1 microsecond'
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS setting,
       unnest(@who::uuid[], @streams::text[], @ips::inet[], @checks::text[], @realms::text[], @users::text[], @names::text[],
              @sessions::integer[], @whole::boolean[], @archives::text[], @age::bigint[], @left::bigint[], @recheck::bigint[])
       AS x(who, stream, ip, check_name, realm, user_id, session_name, sessions, whole_session, archive, age_us, left_us, recheck_us)
ON CONFLICT (who, stream, ip, check_name) DO UPDATE
   SET realm = EXCLUDED.realm, user_id = EXCLUDED.user_id, session_name = EXCLUDED.session_name, sessions = EXCLUDED.sessions,
       whole_session = EXCLUDED.whole_session, archive = EXCLUDED.archive, granted_at = EXCLUDED.granted_at, expires_at = EXCLUDED.expires_at,
       recheck_at = EXCLUDED.recheck_at`

func (g *Grants) write(ctx context.Context, grants []decide.Grant) ([]struct{}, error) {
	_, err := g.store.pool.Exec(ctx, keepGrantsSQL, keepArgs(grants))
	return make([]struct{}, len(grants)), unavailable(err)
}

// keepArgs lays grants out in the order of their keys, so that two statements never wait for
// each other, and each key once, the last given.
func keepArgs(grants []decide.Grant) pgx.NamedArgs {
	sorted := slices.Clone(grants)
	slices.SortStableFunc(sorted, compareGrants)
	var who, fromWho [][16]byte
	var streams, checks, realms, users, names, archives, fromStreams, fromChecks []string
	var ips, fromIPs []netip.Addr
	var sessions []int32
	var whole []bool
	var age, left []int64
	var recheck []*int64
	now := time.Now()
	for i, one := range sorted {
		if one.From.IsValid() && one.From != one.IP {
			fromWho, fromStreams = append(fromWho, one.Who), append(fromStreams, one.Stream)
			fromIPs, fromChecks = append(fromIPs, one.From), append(fromChecks, one.Check)
		}
		if i+1 < len(sorted) && compareGrants(one, sorted[i+1]) == 0 {
			continue
		}
		who, streams, ips = append(who, one.Who), append(streams, one.Stream), append(ips, addressed(one.IP))
		checks, realms, users = append(checks, one.Check), append(realms, one.Realm), append(users, one.User)
		names, sessions, whole = append(names, one.SessionName), append(sessions, int32(one.Sessions)), append(whole, one.Whole)
		archives = append(archives, one.Reach.String())
		age, left = append(age, now.Sub(one.At).Microseconds()), append(left, one.Until.Sub(now).Microseconds())
		var due *int64
		if !one.Recheck.IsZero() {
			us := one.Recheck.Sub(now).Microseconds()
			due = &us
		}
		recheck = append(recheck, due)
	}
	return pgx.NamedArgs{
		"who": who, "streams": streams, "ips": ips, "checks": checks, "realms": realms, "users": users, "names": names,
		"sessions": sessions, "whole": whole, "archives": archives, "age": age, "left": left, "recheck": recheck,
		"from_who": fromWho, "from_streams": fromStreams, "from_ips": fromIPs, "from_checks": fromChecks,
	}
}

func compareGrants(a, b decide.Grant) int {
	if c := slices.Compare(a.Who[:], b.Who[:]); c != 0 {
		return c
	}
	if c := strings.Compare(a.Stream, b.Stream); c != 0 {
		return c
	}
	if c := addressed(a.IP).Compare(addressed(b.IP)); c != 0 {
		return c
	}
	return strings.Compare(a.Check, b.Check)
}

const revokeGrantsSQL = `
DELETE FROM usher.middleware_grant
 WHERE (who, stream, ip, check_name) IN (
       SELECT who, stream, ip, check_name
         FROM usher.middleware_grant
        WHERE realm = @realm AND user_id = @user AND user_id <> ''
        ORDER BY who, stream, ip, check_name
          FOR UPDATE)`

// RevokeGrants ends all that middlewares granted to a user, and says how much that was. Every worker asks anew about
// him within a second; his sessions go on until they are decided again.
func (s *Store) RevokeGrants(ctx context.Context, realm, user string) (int, error) {
	tag, err := s.pool.Exec(ctx, revokeGrantsSQL, pgx.NamedArgs{"realm": realm, "user": user})
	if err != nil {
		return 0, fmt.Errorf("revoking grants: %w", unavailable(err))
	}
	return int(tag.RowsAffected()), nil
}
