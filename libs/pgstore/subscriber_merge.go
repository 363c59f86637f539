package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/subscriber"
)

// badLinesSQL finds lines that cannot stand beside others or beside what is stored.
const badLinesSQL = `
SELECT line, text
  FROM (
    SELECT line, 'user: stands in line ' || first || ' already'
      FROM (SELECT line, min(line) OVER (PARTITION BY user_id) AS first FROM incoming) x
     WHERE line > first
    UNION ALL
    SELECT line, 'token: stands in line ' || first || ' already'
      FROM (SELECT line, min(line) OVER (PARTITION BY token) AS first FROM incoming WHERE token IS NOT NULL) x
     WHERE line > first
    UNION ALL
    SELECT line, 'login: stands in line ' || first || ' already'
      FROM (SELECT line, min(line) OVER (PARTITION BY login) AS first
              FROM (SELECT line, COALESCE(login, CASE WHEN password IS NOT NULL THEN user_id END) AS login FROM incoming) y
             WHERE login IS NOT NULL) x
     WHERE line > first
    UNION ALL
    SELECT i.line, 'token: is that of subscriber ' || s.user_id
      FROM incoming i JOIN usher.subscriber s ON s.realm = @realm AND s.token = i.token AND s.user_id <> i.user_id
    UNION ALL
    SELECT i.line, 'login: is that of subscriber ' || s.user_id
      FROM incoming i JOIN usher.subscriber s ON s.realm = @realm AND s.user_id <> i.user_id
       AND s.login = COALESCE(i.login, CASE WHEN i.password IS NOT NULL THEN i.user_id END)
    UNION ALL
    SELECT i.line, 'packages: there is no package ' || x.name
      FROM incoming i CROSS JOIN unnest(i.packages) AS x (name)
     WHERE NOT EXISTS (SELECT FROM usher.package p WHERE p.realm = @realm AND p.name = x.name)
  ) AS bad (line, text)
 ORDER BY line`

const (
	// What is compared and then written must not be changed in between; readers go on.
	mergeLockSQL = `LOCK TABLE usher.subscriber IN SHARE ROW EXCLUSIVE MODE`
	nextTableSQL = `
CREATE TEMPORARY TABLE next (
  user_id text NOT NULL, fresh boolean NOT NULL, packages text[] NOT NULL, name text, token uuid, login text, password text, sessions integer,
  expires_at timestamptz, networks cidr[], blocked_at timestamptz, comment text
) ON COMMIT DROP`
	touchedSQL = `CREATE TEMPORARY TABLE touched (user_id text NOT NULL) ON COMMIT DROP`
)

const dropBadSQL = `
DELETE FROM incoming
 WHERE line = ANY (@lines)`

// nextSQL is what each subscriber of the file will be: fields of columns that the file has, others as stored.
const nextSQL = `
INSERT INTO next
SELECT i.user_id, s.user_id IS NULL AS fresh, i.packages,
       CASE WHEN @name::boolean OR s.user_id IS NULL THEN i.name ELSE s.name END AS name,
       COALESCE(i.token, s.token) AS token,
       CASE WHEN @login::boolean AND i.login IS NOT NULL THEN i.login
            WHEN i.password IS NOT NULL THEN COALESCE(CASE WHEN NOT @login::boolean THEN s.login END, i.user_id)
            WHEN NOT @login::boolean THEN s.login END AS login,
       CASE WHEN i.password IS NOT NULL THEN i.password
            WHEN NOT @login::boolean OR i.login IS NOT NULL THEN s.password END AS password,
       CASE WHEN @sessions::boolean OR s.user_id IS NULL THEN i.sessions ELSE s.sessions END AS sessions,
       CASE WHEN @until::boolean OR s.user_id IS NULL THEN i.expires_at ELSE s.expires_at END AS expires_at,
       CASE WHEN @ip::boolean OR s.user_id IS NULL THEN COALESCE(i.networks, '{}') ELSE s.networks END AS networks,
       CASE WHEN NOT @blocked::boolean THEN s.blocked_at WHEN i.blocked THEN COALESCE(s.blocked_at, now()) END AS blocked_at,
       CASE WHEN @comment::boolean OR s.user_id IS NULL THEN i.comment ELSE s.comment END AS comment
  FROM incoming i
  LEFT JOIN usher.subscriber s ON s.realm = @realm AND s.user_id = i.user_id`

const mergeSQL = `
WITH merged AS (
  INSERT INTO usher.subscriber AS s (realm, user_id, name, token, login, password, sessions, expires_at, networks, blocked_at, comment)
  SELECT @realm, user_id, name, token, login, password, sessions, expires_at, networks, blocked_at, comment
    FROM next
  ON CONFLICT (realm, user_id) DO UPDATE
     SET name = EXCLUDED.name, token = EXCLUDED.token, login = EXCLUDED.login, password = EXCLUDED.password, sessions = EXCLUDED.sessions,
         expires_at = EXCLUDED.expires_at, networks = EXCLUDED.networks, blocked_at = EXCLUDED.blocked_at, comment = EXCLUDED.comment,
         updated_at = now()
   WHERE (s.name, s.token, s.login, s.password, s.sessions, s.expires_at, s.networks, s.blocked_at, s.comment)
      IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.token, EXCLUDED.login, EXCLUDED.password, EXCLUDED.sessions, EXCLUDED.expires_at,
                        EXCLUDED.networks, EXCLUDED.blocked_at, EXCLUDED.comment)
  RETURNING user_id
)
INSERT INTO touched
SELECT user_id FROM merged`

const (
	mergeDropPackagesSQL = `
WITH dropped AS (
  DELETE FROM usher.subscriber_package p
   USING next n
   WHERE p.realm = @realm AND p.user_id = n.user_id AND NOT p.package = ANY (n.packages)
  RETURNING p.user_id
)
INSERT INTO touched
SELECT user_id FROM dropped`
	mergeGivePackagesSQL = `
WITH given AS (
  INSERT INTO usher.subscriber_package (realm, user_id, package)
  SELECT @realm, n.user_id, x.name
    FROM next n CROSS JOIN unnest(CASE WHEN @packages::boolean THEN n.packages WHEN n.fresh THEN ARRAY[@all::text] END) AS x (name)
  ON CONFLICT DO NOTHING
  RETURNING user_id
)
INSERT INTO touched
SELECT user_id FROM given`
	countMergedSQL = `
SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh AND user_id IN (SELECT user_id FROM touched)), count(*)
  FROM next`
)

func mergeSubscribers(ctx context.Context, tx pgx.Tx, im Import, x *subscriber.Reader, r *Imported) error {
	args := pgx.NamedArgs{"realm": im.Realm, "all": subscriber.AllPackage}
	for _, column := range []string{"name", "login", "sessions", "until", "ip", "blocked", "comment", "packages"} {
		args[column] = x.Has(column)
	}
	for _, sql := range []string{mergeLockSQL, nextTableSQL, touchedSQL, "ANALYZE incoming"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := dropBad(ctx, tx, args, r); err != nil {
		return err
	}
	if r.Bad > 0 && !im.SkipBad {
		return ErrBadLines
	}
	if !x.Has("packages") {
		if err := makeAllPackage(ctx, tx, im.Realm); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, nextSQL, args); err != nil {
		return err
	}
	statements := []string{mergeSQL, mergeGivePackagesSQL}
	if x.Has("packages") {
		statements = []string{mergeSQL, mergeDropPackagesSQL, mergeGivePackagesSQL}
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql, args); err != nil {
			return err
		}
	}
	var all int
	if err := tx.QueryRow(ctx, countMergedSQL).Scan(&r.Added, &r.Changed, &all); err != nil {
		return err
	}
	r.Unchanged = all - r.Added - r.Changed
	return nil
}

// dropBad takes lines out of the table that cannot stand there.
func dropBad(ctx context.Context, tx pgx.Tx, args pgx.NamedArgs, r *Imported) error {
	rows, err := tx.Query(ctx, badLinesSQL, args)
	if err != nil {
		return err
	}
	var lines []int64
	var line int64
	var text string
	_, err = pgx.ForEachRow(rows, []any{&line, &text}, func() error {
		if len(lines) == 0 || lines[len(lines)-1] != line {
			lines = append(lines, line)
			r.bad(subscriber.BadLine{Line: int(line), Text: text})
		}
		return nil
	})
	if err != nil || len(lines) == 0 {
		return err
	}
	_, err = tx.Exec(ctx, dropBadSQL, pgx.NamedArgs{"lines": lines})
	return err
}
