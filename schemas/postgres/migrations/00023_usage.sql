-- +goose Up
-- Creates tables and functions, then two triggers on usher.session_history: SHARE ROW EXCLUSIVE on it and its partitions for a
-- moment, for which closings wait. Sessions that closed before this are not counted in usage.

-- What was played, by day (UTC): outlives the sessions' rows by far. user_id is '' where nobody had a name, or is forgotten.
CREATE TABLE usher.usage_day (
  day        date    NOT NULL,
  realm      text    NOT NULL,
  user_id    text    NOT NULL,
  stream     text    NOT NULL,
  node       text    NOT NULL,
  sessions   bigint  NOT NULL, -- that began on this day
  ms         bigint  NOT NULL, -- of this day, in which they were open
  playing_ms bigint  NOT NULL, -- as far as nodes told how long they played
  bytes      bigint  NOT NULL,
  peak       integer NOT NULL, -- most at the same moment
  PRIMARY KEY (day, realm, user_id, stream, node)
);
CREATE INDEX usage_day_user ON usher.usage_day (realm, user_id) WHERE user_id <> '';

-- The most sessions at one moment of a day of a whole user, stream, node or realm: no sum of the rows above tells that. Realm '*'
-- is all realms but probes.
CREATE TABLE usher.usage_peak (
  day   date        NOT NULL,
  kind  text        NOT NULL CHECK (kind IN ('user', 'stream', 'node', 'realm')),
  realm text        NOT NULL,
  name  text        NOT NULL,
  peak  integer     NOT NULL,
  PRIMARY KEY (day, kind, realm, name)
);

-- What is not counted in usage_day yet: whoever writes history writes it here in the same transaction, whoever counts takes it out
-- in the transaction that counts. sign -1: the time is taken back.
CREATE TABLE usher.usage_due (
  session_id uuid        NOT NULL,
  realm      text        NOT NULL,
  user_id    text        NOT NULL,
  stream     text        NOT NULL,
  node       text        NOT NULL,
  opened_at  timestamptz NOT NULL,
  ended_at   timestamptz NOT NULL,
  sign       smallint    NOT NULL,
  sessions   smallint    NOT NULL,
  bytes      bigint      NOT NULL,
  playing_ms bigint      NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- How far live sessions are counted that have seen a midnight.
CREATE TABLE usher.usage_seat (
  session_id uuid        NOT NULL PRIMARY KEY,
  until      timestamptz NOT NULL,
  bytes      bigint      NOT NULL
);

-- Days whose peaks must be worked out again.
CREATE TABLE usher.usage_peak_due (day date NOT NULL PRIMARY KEY);

-- +goose StatementBegin
-- session_end is when a session ended, as far as anybody knows: one that ended by silence ended with its last sign of life.
CREATE FUNCTION usher.session_end(p_opened timestamptz, p_seen timestamptz, p_closed timestamptz, p_reason text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(p_opened, CASE WHEN p_closed IS NULL OR p_reason IN ('idle', 'expired') THEN p_seen ELSE p_closed END)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION usher.history_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usher.usage_due (session_id, realm, user_id, stream, node, opened_at, ended_at, sign, sessions, bytes, playing_ms)
  SELECT session_id, realm, COALESCE(user_id, ''), stream, node, opened_at,
         usher.session_end(opened_at, last_seen_at, closed_at, close_reason), 1, 1, bytes, COALESCE(playing_ms, 0)
    FROM new_rows;
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- history_changed: what a node told late is counted by the difference. Before, since a row whose end moves to another day moves to
-- another partition, which no trigger after it would see.
CREATE FUNCTION usher.history_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_old timestamptz := usher.session_end(OLD.opened_at, OLD.last_seen_at, OLD.closed_at, OLD.close_reason);
  v_new timestamptz := usher.session_end(NEW.opened_at, NEW.last_seen_at, NEW.closed_at, NEW.close_reason);
BEGIN
  IF v_old <> v_new OR OLD.bytes <> NEW.bytes OR OLD.playing_ms IS DISTINCT FROM NEW.playing_ms THEN
    INSERT INTO usher.usage_due (session_id, realm, user_id, stream, node, opened_at, ended_at, sign, sessions, bytes, playing_ms)
    VALUES (NEW.session_id, NEW.realm, COALESCE(NEW.user_id, ''), NEW.stream, NEW.node, least(v_old, v_new), greatest(v_old, v_new),
            CASE WHEN v_new < v_old THEN -1 ELSE 1 END, 0, NEW.bytes - OLD.bytes, COALESCE(NEW.playing_ms, 0) - COALESCE(OLD.playing_ms, 0));
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER history_written AFTER INSERT ON usher.session_history
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.history_written();
CREATE TRIGGER history_changed BEFORE UPDATE OF bytes, playing_ms, last_seen_at, closed_at, close_reason ON usher.session_history
  FOR EACH ROW EXECUTE FUNCTION usher.history_changed();

-- +goose StatementBegin
-- lock_usage keeps a transaction alone with the tables of usage until it ends.
CREATE FUNCTION usher.lock_usage() RETURNS void LANGUAGE sql AS $$
  SELECT pg_advisory_xact_lock(hashtextextended('usher.usage', 0))
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- add_usage counts stretches of sessions, each by the days it touches. Bytes are spread evenly over a stretch, and what rounding
-- leaves goes to its last day, so that the days' sum is the stretch's. A session counts on the day of its beginning.
CREATE FUNCTION usher.add_usage(p_due usher.usage_due[]) RETURNS void
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' AS $$
BEGIN
  WITH days AS MATERIALIZED (
    SELECT g.day::date AS day, d.realm, d.user_id, d.stream, d.node, d.sign,
           CASE WHEN g.day = d.first THEN d.sessions ELSE 0 END AS sessions,
           floor(extract(epoch FROM least(g.day + interval '1 day', d.hi) - d.lo) * 1000)::bigint
             - floor(extract(epoch FROM greatest(g.day, d.lo) - d.lo) * 1000)::bigint AS ms,
           CASE WHEN d.first = d.last THEN d.bytes
                ELSE div(d.bytes * extract(epoch FROM least(g.day + interval '1 day', d.hi) - d.lo), extract(epoch FROM d.hi - d.lo))
                   - div(d.bytes * extract(epoch FROM greatest(g.day, d.lo) - d.lo), extract(epoch FROM d.hi - d.lo)) END::bigint AS bytes,
           CASE WHEN d.first = d.last THEN d.playing_ms
                ELSE div(d.playing_ms * extract(epoch FROM least(g.day + interval '1 day', d.hi) - d.lo), extract(epoch FROM d.hi - d.lo))
                   - div(d.playing_ms * extract(epoch FROM greatest(g.day, d.lo) - d.lo), extract(epoch FROM d.hi - d.lo)) END::bigint AS playing_ms
      FROM (SELECT u.realm, u.user_id, u.stream, u.node, u.sessions, u.bytes, u.playing_ms,
                   CASE WHEN u.ended_at < u.opened_at THEN -u.sign ELSE u.sign END AS sign,
                   least(u.opened_at, u.ended_at) AS lo, greatest(u.opened_at, u.ended_at) AS hi,
                   date_trunc('day', least(u.opened_at, u.ended_at)) AS first,
                   -- A session that ends at midnight has no part in the day that begins.
                   date_trunc('day', greatest(u.opened_at, u.ended_at)
                     - CASE WHEN u.opened_at = u.ended_at THEN interval '0' ELSE interval '1 microsecond' END) AS last
              FROM unnest(p_due) u) d
     CROSS JOIN LATERAL generate_series(d.first, d.last, interval '1 day') AS g(day)
  ), dirty AS (
    -- Days long past keep the peaks that were worked out while their sessions were at hand.
    INSERT INTO usage_peak_due (day)
    SELECT DISTINCT day FROM days
     WHERE day >= current_date - 3 OR NOT EXISTS (SELECT 1 FROM usage_peak p WHERE p.day = days.day AND p.kind = 'realm')
     ORDER BY 1
    ON CONFLICT DO NOTHING
  )
  INSERT INTO usage_day AS t (day, realm, user_id, stream, node, sessions, ms, playing_ms, bytes, peak)
  SELECT day, realm, user_id, stream, node, sum(sessions), sum(sign * ms), sum(playing_ms), sum(bytes), 0
    FROM days
   GROUP BY day, realm, user_id, stream, node
   ORDER BY day, realm, user_id, stream, node
  ON CONFLICT (day, realm, user_id, stream, node) DO UPDATE
     SET sessions = t.sessions + EXCLUDED.sessions, ms = t.ms + EXCLUDED.ms,
         playing_ms = t.playing_ms + EXCLUDED.playing_ms, bytes = t.bytes + EXCLUDED.bytes;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- roll_usage counts up to p_max closed sessions, and the live ones once a day, which a midnight has found open; it returns how many
-- closed ones it took. All in the caller's transaction: none is ever counted twice or lost.
CREATE FUNCTION usher.roll_usage(p_max integer) RETURNS integer
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' AS $$
DECLARE
  v_due  usher.usage_due[];
  v_live usher.usage_due[];
BEGIN
  PERFORM lock_usage();
  WITH due AS (
    DELETE FROM usage_due WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_due LIMIT p_max)) RETURNING *
  ), counted AS (
    DELETE FROM usage_seat s USING due d WHERE s.session_id = d.session_id AND d.sessions = 1 RETURNING s.*
  )
  SELECT array_agg(ROW(d.session_id, d.realm, d.user_id, d.stream, d.node, COALESCE(s.until, d.opened_at), d.ended_at, d.sign,
                       CASE WHEN s.until IS NULL THEN d.sessions ELSE 0 END, d.bytes - COALESCE(s.bytes, 0), d.playing_ms)::usher.usage_due)
    INTO v_due
    FROM due d LEFT JOIN counted s ON s.session_id = d.session_id AND d.sessions = 1;

  -- In a later statement, so that a session which closes meanwhile is in neither, and counted by the next call.
  WITH live AS (
    SELECT t.session_id, t.realm, COALESCE(t.user_id, '') AS user_id, t.stream, t.node, COALESCE(s.until, t.opened_at) AS since,
           t.last_seen_at, t.bytes, s.until IS NULL AS first, COALESCE(s.bytes, 0) AS counted
      FROM seat t LEFT JOIN usage_seat s USING (session_id)
     WHERE t.opened_at < current_date AND COALESCE(s.until, t.opened_at) < current_date AND t.last_seen_at > COALESCE(s.until, t.opened_at)
  ), kept AS (
    INSERT INTO usage_seat (session_id, until, bytes) SELECT session_id, last_seen_at, bytes FROM live ORDER BY session_id
    ON CONFLICT (session_id) DO UPDATE SET until = EXCLUDED.until, bytes = EXCLUDED.bytes
  )
  SELECT array_agg(ROW(session_id, realm, user_id, stream, node, since, last_seen_at, 1, CASE WHEN first THEN 1 ELSE 0 END,
                       bytes - counted, 0)::usher.usage_due) INTO v_live FROM live;

  IF v_due IS NOT NULL OR v_live IS NOT NULL THEN
    PERFORM add_usage(COALESCE(v_due, '{}') || COALESCE(v_live, '{}'));
  END IF;
  RETURN COALESCE(cardinality(v_due), 0);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- day_sessions are the sessions that were open on a day, and from when to when of it.
CREATE FUNCTION usher.day_sessions(p_day date) RETURNS TABLE (realm text, user_id text, stream text, node text, since timestamptz, until timestamptz)
LANGUAGE sql STABLE SET search_path = usher, pg_catalog SET timezone = 'UTC' AS $$
  SELECT s.realm, COALESCE(s.user_id, ''), s.stream, s.node, greatest(s.opened_at, p_day::timestamptz),
         least(greatest(s.ended, s.opened_at + interval '1 millisecond'), p_day + interval '1 day')
    FROM (SELECT realm, user_id, stream, node, opened_at, session_end(opened_at, last_seen_at, closed_at, close_reason) AS ended
            FROM session_history
           WHERE closed_at >= p_day::timestamptz AND opened_at < p_day + interval '1 day'
          UNION ALL
          SELECT realm, user_id, stream, node, opened_at, last_seen_at FROM seat WHERE opened_at < p_day + interval '1 day') s
   -- Who left at midnight was not there any more.
   WHERE greatest(s.ended, s.opened_at + interval '1 millisecond') > p_day::timestamptz
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- roll_peaks works out the peaks of a day from its sessions' beginnings and ends. A day whose sessions are gone keeps its peaks.
CREATE FUNCTION usher.roll_peaks(p_day date) RETURNS void
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

CREATE VIEW usher.usage AS
SELECT day, realm, user_id, stream, node, sessions, round(ms / 1000.0)::bigint AS seconds, bytes, peak, round(playing_ms / 1000.0)::bigint AS playing_seconds
  FROM usher.usage_day;

CREATE VIEW usher.usage_peaks AS
SELECT day, kind, realm, name, peak FROM usher.usage_peak;

-- How long: seconds is from the opening to the last that is known; playing_ms is the node's own word. last_seen_at of a live one moves.
CREATE OR REPLACE VIEW usher.sessions AS
SELECT session_id, realm, user_id, stream, node, caller, region, ip, user_agent, country,
       opened_at, last_seen_at, NULL::timestamptz AS closed_at, NULL::text AS close_reason,
       edge, device, decision_id, requests, bytes, rechecks, expires_at,
       NULL::text AS close_detail, NULL::bigint AS playing_ms,
       round(extract(epoch FROM usher.session_end(opened_at, last_seen_at, NULL, NULL) - opened_at))::bigint AS seconds
  FROM usher.seat
UNION ALL
SELECT session_id, realm, user_id, stream, node, caller, region, ip, user_agent, country,
       opened_at, last_seen_at, closed_at, close_reason,
       edge, device, decision_id, requests, bytes, rechecks, NULL::timestamptz AS expires_at,
       close_detail, playing_ms,
       round(extract(epoch FROM usher.session_end(opened_at, last_seen_at, closed_at, close_reason) - opened_at))::bigint
  FROM usher.session_history;

-- Closed sessions under the names of Flussonic's SQL and session list, for reports that were written for it. Times are seconds of
-- Unix, as there. There is no token: none is ever stored.
CREATE VIEW usher.sessions_history AS
SELECT session_id AS id, session_id, stream AS name, user_id AS user_name, host(ip) AS ip, country, user_id, caller AS type, user_agent,
       bytes AS bytes_sent, round(extract(epoch FROM usher.session_end(opened_at, last_seen_at, closed_at, close_reason) - opened_at))::bigint AS duration,
       extract(epoch FROM opened_at)::bigint AS created_at, extract(epoch FROM closed_at)::bigint AS deleted_at,
       opened_at, closed_at, node, realm, close_reason AS reason, close_detail
  FROM usher.session_history;

GRANT SELECT ON usher.usage, usher.usage_peaks, usher.sessions_history TO usher_reader;

-- +goose Down
DROP VIEW usher.sessions_history, usher.usage_peaks, usher.usage, usher.sessions;
CREATE VIEW usher.sessions AS
SELECT session_id, realm, user_id, stream, node, caller, region, ip, user_agent, country,
       opened_at, last_seen_at, NULL::timestamptz AS closed_at, NULL::text AS close_reason,
       edge, device, decision_id, requests, bytes, rechecks, expires_at
  FROM usher.seat
UNION ALL
SELECT session_id, realm, user_id, stream, node, caller, region, ip, user_agent, country,
       opened_at, last_seen_at, closed_at, close_reason,
       edge, device, decision_id, requests, bytes, rechecks, NULL::timestamptz AS expires_at
  FROM usher.session_history;
GRANT SELECT ON usher.sessions TO usher_reader;
DROP TRIGGER history_changed ON usher.session_history;
DROP TRIGGER history_written ON usher.session_history;
DROP FUNCTION usher.roll_peaks(date), usher.day_sessions(date), usher.roll_usage(integer), usher.add_usage(usher.usage_due[]), usher.lock_usage(),
              usher.history_changed(), usher.history_written(), usher.session_end(timestamptz, timestamptz, timestamptz, text);
DROP TABLE usher.usage_peak_due, usher.usage_seat, usher.usage_due, usher.usage_peak, usher.usage_day;
