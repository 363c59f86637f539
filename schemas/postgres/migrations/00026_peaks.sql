-- +goose Up
-- Replaces a function: takes no lock that anybody could wait for.

-- +goose StatementBegin
-- roll_peaks works out the peaks of a day from its sessions' beginnings and ends. A day whose sessions are gone keeps its peaks.
CREATE OR REPLACE FUNCTION usher.roll_peaks(p_day date) RETURNS void
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' SET work_mem = '64MB' AS $$
BEGIN
  PERFORM lock_usage();
  DELETE FROM usage_peak_due WHERE day = p_day;
  IF to_regclass(format('usher.%I', 'session_history' || to_char(p_day, '_YYYYMMDD'))) IS NULL THEN
    RETURN;
  END IF;

  -- Where one ends and another begins at the same moment, as in a zap, they were not both there. Only what differs is written: a
  -- conflict would lock, and so write, every row.
  WITH event AS MATERIALIZED (
    SELECT s.realm, s.user_id, s.stream, s.node, e.at, e.n::smallint AS n
      FROM day_sessions(p_day) s CROSS JOIN LATERAL (VALUES (s.since, 1), (s.until, -1)) AS e(at, n)
  ), one AS MATERIALIZED (
    SELECT realm, user_id, stream, node, max(c)::integer AS peak
      FROM (SELECT realm, user_id, stream, node,
                   sum(n) OVER (PARTITION BY realm, user_id, stream, node ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c
              FROM event) x
     GROUP BY realm, user_id, stream, node
  ), rows AS (
    INSERT INTO usage_day (day, realm, user_id, stream, node, sessions, ms, playing_ms, bytes, peak)
    SELECT p_day, o.realm, o.user_id, o.stream, o.node, 0, 0, 0, 0, o.peak
      FROM one o
      LEFT JOIN usage_day t ON t.day = p_day AND (t.realm, t.user_id, t.stream, t.node) = (o.realm, o.user_id, o.stream, o.node)
     WHERE t.peak IS DISTINCT FROM o.peak
    ON CONFLICT (day, realm, user_id, stream, node) DO UPDATE SET peak = EXCLUDED.peak
  ), whole AS MATERIALIZED (
    SELECT 'user' AS kind, realm AS realm, user_id AS name, max(c)::integer AS peak
      FROM (SELECT realm, user_id, sum(n) OVER (PARTITION BY realm, user_id ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event WHERE user_id <> '') x GROUP BY realm, user_id
    UNION ALL
    SELECT 'stream' AS kind, realm AS realm, stream AS name, max(c)::integer AS peak
      FROM (SELECT realm, stream, sum(n) OVER (PARTITION BY realm, stream ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event) x GROUP BY realm, stream
    UNION ALL
    SELECT 'stream' AS kind, '*' AS realm, stream AS name, max(c)::integer AS peak
      FROM (SELECT stream, sum(n) OVER (PARTITION BY stream ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event WHERE realm <> 'probes') x GROUP BY stream
    UNION ALL
    SELECT 'node' AS kind, realm AS realm, node AS name, max(c)::integer AS peak
      FROM (SELECT realm, node, sum(n) OVER (PARTITION BY realm, node ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event) x GROUP BY realm, node
    UNION ALL
    SELECT 'node' AS kind, '*' AS realm, node AS name, max(c)::integer AS peak
      FROM (SELECT node, sum(n) OVER (PARTITION BY node ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event WHERE realm <> 'probes') x GROUP BY node
    UNION ALL
    SELECT 'realm' AS kind, realm AS realm, '' AS name, max(c)::integer AS peak
      FROM (SELECT realm, sum(n) OVER (PARTITION BY realm ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event) x GROUP BY realm
    UNION ALL
    SELECT 'realm' AS kind, '*' AS realm, '' AS name, max(c)::integer AS peak
      FROM (SELECT sum(n) OVER (ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event WHERE realm <> 'probes') x HAVING count(*) > 0
  )
  INSERT INTO usage_peak (day, kind, realm, name, peak)
  SELECT p_day, w.kind, w.realm, w.name, w.peak
    FROM whole w
    LEFT JOIN usage_peak t ON t.day = p_day AND (t.kind, t.realm, t.name) = (w.kind, w.realm, w.name)
   WHERE t.peak IS DISTINCT FROM w.peak
  ON CONFLICT (day, kind, realm, name) DO UPDATE SET peak = EXCLUDED.peak;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
-- roll_peaks works out the peaks of a day from its sessions' beginnings and ends. A day whose sessions are gone keeps its peaks.
CREATE OR REPLACE FUNCTION usher.roll_peaks(p_day date) RETURNS void
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' SET work_mem = '64MB' AS $$
BEGIN
  PERFORM lock_usage();
  DELETE FROM usage_peak_due WHERE day = p_day;
  IF to_regclass(format('usher.%I', 'session_history' || to_char(p_day, '_YYYYMMDD'))) IS NULL THEN
    RETURN;
  END IF;

  -- Where one ends and another begins at the same moment, as in a zap, they were not both there.
  WITH event AS MATERIALIZED (
    SELECT s.realm, s.user_id, s.stream, s.node, e.at, e.n::smallint AS n
      FROM day_sessions(p_day) s CROSS JOIN LATERAL (VALUES (s.since, 1), (s.until, -1)) AS e(at, n)
  ), rows AS (
    INSERT INTO usage_day AS t (day, realm, user_id, stream, node, sessions, ms, playing_ms, bytes, peak)
    SELECT p_day, realm, user_id, stream, node, 0, 0, 0, 0, max(c)
      FROM (SELECT realm, user_id, stream, node,
                   sum(n) OVER (PARTITION BY realm, user_id, stream, node ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c
              FROM event) x
     GROUP BY realm, user_id, stream, node
    ON CONFLICT (day, realm, user_id, stream, node) DO UPDATE SET peak = EXCLUDED.peak WHERE t.peak <> EXCLUDED.peak
  )
  INSERT INTO usage_peak AS t (day, kind, realm, name, peak)
  SELECT p_day, kind, realm, name, max(c)
    FROM (SELECT 'user' AS kind, realm, user_id AS name,
                 sum(n) OVER (PARTITION BY realm, user_id ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c
            FROM event WHERE user_id <> ''
          UNION ALL
          SELECT 'stream', realm, stream, sum(n) OVER (PARTITION BY realm, stream ORDER BY at, n ROWS UNBOUNDED PRECEDING) FROM event
          UNION ALL
          SELECT 'stream', '*', stream, sum(n) OVER (PARTITION BY stream ORDER BY at, n ROWS UNBOUNDED PRECEDING)
            FROM event WHERE realm <> 'probes'
          UNION ALL
          SELECT 'node', realm, node, sum(n) OVER (PARTITION BY realm, node ORDER BY at, n ROWS UNBOUNDED PRECEDING) FROM event
          UNION ALL
          SELECT 'node', '*', node, sum(n) OVER (PARTITION BY node ORDER BY at, n ROWS UNBOUNDED PRECEDING)
            FROM event WHERE realm <> 'probes'
          UNION ALL
          SELECT 'realm', realm, '', sum(n) OVER (PARTITION BY realm ORDER BY at, n ROWS UNBOUNDED PRECEDING) FROM event
          UNION ALL
          SELECT 'realm', '*', '', sum(n) OVER (ORDER BY at, n ROWS UNBOUNDED PRECEDING) FROM event WHERE realm <> 'probes') x
   GROUP BY kind, realm, name
  ON CONFLICT (day, kind, realm, name) DO UPDATE SET peak = EXCLUDED.peak WHERE t.peak <> EXCLUDED.peak;
END $$;
-- +goose StatementEnd
