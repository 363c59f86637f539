-- +goose Up
-- Creates tables, functions and views: takes no lock that anybody could wait for.

-- What was done to the history itself: who was forgotten (by fingerprint), what went early since the disk filled.
CREATE TABLE usher.audit (
  id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  action text        NOT NULL,
  author text        NOT NULL,
  detail jsonb       NOT NULL
);
GRANT SELECT ON usher.audit TO usher_reader;

-- Users that are forgotten, by a fingerprint under a key of this database alone: what is still under way of the time before is
-- recorded without them. It ends when nothing can be under way any more.
CREATE TABLE usher.forget_key (one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one), key uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO usher.forget_key DEFAULT VALUES;
CREATE TABLE usher.forgotten (
  who   uuid        NOT NULL PRIMARY KEY,
  at    timestamptz NOT NULL,
  until timestamptz NOT NULL
);

-- +goose StatementBegin
-- user_print is the fingerprint of a user.
CREATE FUNCTION usher.user_print(p_realm text, p_user text) RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT encode(substr(sha256(convert_to(k.key::text || ' ' || octet_length(p_realm) || ' ' || p_realm || p_user, 'UTF8')), 1, 16), 'hex')::uuid
    FROM usher.forget_key k
$$;
-- +goose StatementEnd

-- Partitions whose addresses are short already.
CREATE TABLE usher.shortened (name text NOT NULL PRIMARY KEY);

-- +goose StatementBegin
-- short_address leaves the network of an address: /24 and /48.
CREATE FUNCTION usher.short_address(p_ip inet) RETURNS inet LANGUAGE sql IMMUTABLE AS $$
  SELECT host(network(set_masklen(p_ip, CASE family(p_ip) WHEN 4 THEN 24 ELSE 48 END)))::inet
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- short_device does the same to a device that is told by where it is and what it says it is.
CREATE FUNCTION usher.short_device(p_device text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN p_device ~ '^[0-9]{1,3}([.][0-9]{1,3}){3}( |$)' THEN regexp_replace(p_device, '^([0-9]+[.][0-9]+[.][0-9]+)[.][0-9]+', '\1.0')
              WHEN p_device ~ '^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){2}:[0-9a-f:]*( |$)' THEN regexp_replace(p_device, '^([0-9a-f]+:[0-9a-f]+:[0-9a-f]+):[0-9a-f:]*', '\1::')
              ELSE p_device END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- shorten_addresses shortens the addresses of one partition in which all is older than p_keep, and returns its name, null if there
-- is none left.
CREATE FUNCTION usher.shorten_addresses(p_keep interval) RETURNS text
LANGUAGE plpgsql SET search_path = usher, pg_catalog AS $$
DECLARE
  v_name text;
BEGIN
  -- Two recorders at once: the second finds it done.
  PERFORM pg_advisory_xact_lock(hashtextextended('usher.shorten_addresses', 0));
  SELECT p INTO v_name
    FROM (SELECT old_partitions('decision', p_keep) AS p UNION ALL SELECT old_partitions('session_history', p_keep)) x
   WHERE NOT EXISTS (SELECT 1 FROM shortened s WHERE s.name = x.p)
   ORDER BY p LIMIT 1;
  IF v_name IS NULL THEN
    DELETE FROM shortened WHERE to_regclass(format('usher.%I', name)) IS NULL;
    RETURN NULL;
  END IF;
  IF v_name LIKE 'decision%' THEN
    EXECUTE format('UPDATE usher.%I SET ip = short_address(ip) WHERE ip <> short_address(ip)', v_name);
  ELSE
    EXECUTE format('UPDATE usher.%I SET ip = short_address(ip), device = short_device(device)
                     WHERE ip <> short_address(ip) OR device <> short_device(device)', v_name);
  END IF;
  INSERT INTO shortened VALUES (v_name);
  RETURN v_name;
END $$;
-- +goose StatementEnd

-- Who watched and with what, by day: kept as long as usage.
CREATE TABLE usher.audience_day (
  day      date    NOT NULL,
  kind     text    NOT NULL CHECK (kind IN ('realm', 'stream', 'node', 'country', 'device', 'caller')),
  realm    text    NOT NULL,
  name     text    NOT NULL,
  sessions bigint  NOT NULL, -- open on this day
  views    bigint  NOT NULL, -- the same viewer on the same stream within five minutes is one
  viewers  bigint  NOT NULL, -- different ones: users, and addresses with their user agents of those without
  ms       bigint  NOT NULL,
  bytes    bigint  NOT NULL, -- of sessions that ended on this day
  PRIMARY KEY (day, kind, realm, name)
);

-- +goose StatementBegin
-- device_family says in a word what a user agent is: what plays television first, since libraries for the web know it as
-- "Safari on Linux".
CREATE FUNCTION usher.device_family(p_agent text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN p_agent = '' THEN 'none'
    WHEN p_agent ~* 'stbapp|\mMAG ?[0-9]{3}|infomir' THEN 'MAG'
    WHEN p_agent ~* 'tizen|smart-?tv.*samsung|maple' THEN 'Samsung TV'
    WHEN p_agent ~* 'web0s|webos|netcast' THEN 'LG TV'
    WHEN p_agent ~* '\mAFT[A-Z0-9]+|fire ?tv' THEN 'Fire TV'
    WHEN p_agent ~* 'apple ?tv|tvos' THEN 'Apple TV'
    WHEN p_agent ~* 'roku' THEN 'Roku'
    WHEN p_agent ~* '\mcrkey' THEN 'Chromecast'
    WHEN p_agent ~* 'android ?tv|bravia|mibox|shield android' THEN 'Android TV'
    WHEN p_agent ~* 'dune' THEN 'Dune HD'
    WHEN p_agent ~* 'enigma2|dreambox|openpli' THEN 'Enigma2'
    WHEN p_agent ~* 'smart-?tv|hbbtv|vidaa' THEN 'other TV'
    WHEN p_agent ~* 'tivimate' THEN 'TiviMate'
    WHEN p_agent ~* 'ott ?navigator' THEN 'OTT Navigator'
    WHEN p_agent ~* 'kodi|xbmc' THEN 'Kodi'
    WHEN p_agent ~* 'vlc' THEN 'VLC'
    WHEN p_agent ~* '\mmpv' THEN 'mpv'
    WHEN p_agent ~* 'lavf|ffmpeg|libav' THEN 'FFmpeg'
    WHEN p_agent ~* 'gstreamer' THEN 'GStreamer'
    WHEN p_agent ~* 'flussonic|astra|wowza|nimble|mediamtx' THEN 'streaming server'
    WHEN p_agent ~* 'applecoremedia.*(iphone|ipad|ipod)|iphone|ipad' THEN 'iPhone, iPad'
    WHEN p_agent ~* 'exoplayer|androidxmedia3' THEN 'ExoPlayer'
    WHEN p_agent ~* 'android|dalvik|okhttp' THEN 'Android'
    WHEN p_agent ~* 'edg/|edge/' THEN 'Edge'
    WHEN p_agent ~* 'opr/|opera' THEN 'Opera'
    WHEN p_agent ~* 'firefox' THEN 'Firefox'
    WHEN p_agent ~* 'chrome|chromium' THEN 'Chrome'
    WHEN p_agent ~* 'applecoremedia|quicktime|safari' THEN 'Safari'
    WHEN p_agent ~* 'curl|wget|python|go-http|java/|bot' THEN 'script'
    ELSE 'other' END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- roll_audience works out who watched on a day and with what.
CREATE FUNCTION usher.roll_audience(p_day date) RETURNS void
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' SET work_mem = '64MB' AS $$
BEGIN
  PERFORM lock_usage();
  IF to_regclass(format('usher.%I', 'session_history' || to_char(p_day, '_YYYYMMDD'))) IS NULL THEN
    RETURN;
  END IF;
  DELETE FROM audience_day WHERE day = p_day;
  WITH raw AS MATERIALIZED (
    SELECT realm, stream, node, caller, country, user_agent,
           hashtextextended(CASE WHEN user_id IS NULL THEN host(ip) || ' ' || user_agent ELSE realm || '/' || user_id END, 0) AS who,
           greatest(opened_at, p_day::timestamptz) AS since, least(ended, p_day + interval '1 day') AS until,
           CASE WHEN ended < p_day + interval '1 day' THEN bytes ELSE 0 END AS bytes
      FROM (SELECT realm, user_id, stream, node, caller, country, user_agent, ip, opened_at, bytes,
                   session_end(opened_at, last_seen_at, closed_at, close_reason) AS ended
              FROM session_history
             WHERE closed_at >= p_day::timestamptz AND opened_at < p_day + interval '1 day'
            UNION ALL
            SELECT realm, user_id, stream, node, caller, country, user_agent, ip, opened_at, 0, last_seen_at
              FROM seat WHERE opened_at < p_day + interval '1 day') s
     WHERE greatest(ended, opened_at + interval '1 millisecond') > p_day::timestamptz
  ), family AS MATERIALIZED (
    -- Each user agent is looked at once.
    SELECT user_agent, device_family(user_agent) AS family FROM (SELECT DISTINCT user_agent FROM raw) x
  ), one AS MATERIALIZED (
    SELECT r.realm, r.stream, r.node, r.caller, COALESCE(r.country, '') AS country, f.family, r.who,
           floor(extract(epoch FROM r.until - r.since) * 1000)::bigint AS ms, r.bytes,
           CASE WHEN r.since <= lag(r.until) OVER (PARTITION BY r.who, r.stream ORDER BY r.since) + interval '5 minutes' THEN 0 ELSE 1 END AS views
      FROM raw r JOIN family f USING (user_agent)
  )
  INSERT INTO audience_day (day, kind, realm, name, sessions, views, viewers, ms, bytes)
  SELECT p_day, 'realm', realm, '', count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm
  UNION ALL SELECT p_day, 'stream', realm, stream, count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm, stream
  UNION ALL SELECT p_day, 'node', realm, node, count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm, node
  UNION ALL SELECT p_day, 'country', realm, country, count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm, country
  UNION ALL SELECT p_day, 'device', realm, family, count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm, family
  UNION ALL SELECT p_day, 'caller', realm, caller, count(*), sum(views), count(DISTINCT who), sum(ms), sum(bytes) FROM one GROUP BY realm, caller;
END $$;
-- +goose StatementEnd

CREATE VIEW usher.audience AS
SELECT day, kind, realm, name, sessions, views, viewers, round(ms / 1000.0)::bigint AS seconds, bytes FROM usher.audience_day WHERE realm <> 'probes';

CREATE VIEW usher.stats_users AS
SELECT u.day, u.realm, u.user_id, sum(u.sessions)::bigint AS sessions, round(sum(u.ms) / 1000.0)::bigint AS seconds, sum(u.bytes)::bigint AS bytes,
       count(*) FILTER (WHERE u.ms > 0) AS streams_and_nodes,
       (SELECT p.peak FROM usher.usage_peak p WHERE p.day = u.day AND p.kind = 'user' AND p.realm = u.realm AND p.name = u.user_id) AS peak
  FROM usher.usage_day u
 WHERE u.realm <> 'probes' AND u.user_id <> ''
 GROUP BY u.day, u.realm, u.user_id;

CREATE VIEW usher.stats_streams AS
SELECT u.day, u.realm, u.stream, sum(u.sessions)::bigint AS sessions, round(sum(u.ms) / 1000.0)::bigint AS seconds, sum(u.bytes)::bigint AS bytes,
       (SELECT p.peak FROM usher.usage_peak p WHERE p.day = u.day AND p.kind = 'stream' AND p.realm = u.realm AND p.name = u.stream) AS peak,
       (SELECT a.viewers FROM usher.audience_day a WHERE a.day = u.day AND a.kind = 'stream' AND a.realm = u.realm AND a.name = u.stream) AS viewers,
       (SELECT a.views FROM usher.audience_day a WHERE a.day = u.day AND a.kind = 'stream' AND a.realm = u.realm AND a.name = u.stream) AS views
  FROM usher.usage_day u
 WHERE u.realm <> 'probes'
 GROUP BY u.day, u.realm, u.stream;

CREATE VIEW usher.stats_countries AS SELECT day, realm, name AS country, sessions, views, viewers, seconds, bytes FROM usher.audience WHERE kind = 'country';
CREATE VIEW usher.stats_devices AS SELECT day, realm, name AS family, sessions, views, viewers, seconds, bytes FROM usher.audience WHERE kind = 'device';
CREATE VIEW usher.stats_callers AS SELECT day, realm, name AS caller, sessions, views, viewers, seconds, bytes FROM usher.audience WHERE kind = 'caller';

-- +goose StatementBegin
-- concurrency is the most sessions at one moment in each step of a time, of all realms but probes or of one, and of one stream or
-- node if named. Readers may call it: it tells numbers alone.
CREATE FUNCTION usher.concurrency(p_from timestamptz, p_to timestamptz, p_step interval DEFAULT '5 minutes',
  p_realm text DEFAULT NULL, p_stream text DEFAULT NULL, p_node text DEFAULT NULL) RETURNS TABLE (at timestamptz, sessions bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = usher, pg_catalog, pg_temp SET work_mem = '64MB' AS $$
  WITH one AS MATERIALIZED (
    SELECT greatest(opened_at, p_from) AS since, greatest(ended, opened_at + interval '1 millisecond') AS until
      FROM (SELECT opened_at, session_end(opened_at, last_seen_at, closed_at, close_reason) AS ended, realm, stream, node
              FROM session_history WHERE closed_at >= p_from AND opened_at < p_to
            UNION ALL SELECT opened_at, clock_timestamp(), realm, stream, node FROM seat WHERE opened_at < p_to) s
     WHERE CASE WHEN p_realm IS NULL THEN realm <> 'probes' ELSE realm = p_realm END
       AND (p_stream IS NULL OR stream = p_stream) AND (p_node IS NULL OR node = p_node)
       AND greatest(ended, opened_at + interval '1 millisecond') > p_from
  ), event AS (
    SELECT since AS at, 1 AS n FROM one
    UNION ALL SELECT until, -1 FROM one WHERE until < p_to
    -- Each step begins with who is still there.
    UNION ALL SELECT g, 0 FROM generate_series(p_from, p_to - interval '1 microsecond', p_step) g
  ), running AS (
    SELECT at, sum(n) OVER (ORDER BY at, n ROWS UNBOUNDED PRECEDING) AS c FROM event
  )
  SELECT date_bin(p_step, at, p_from), max(c)::bigint FROM running GROUP BY 1 ORDER BY 1
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION usher.concurrency(timestamptz, timestamptz, interval, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION usher.concurrency(timestamptz, timestamptz, interval, text, text, text) TO usher_reader;
GRANT SELECT ON usher.audience, usher.stats_users, usher.stats_streams, usher.stats_countries, usher.stats_devices, usher.stats_callers TO usher_reader;

-- +goose Down
DROP FUNCTION usher.concurrency(timestamptz, timestamptz, interval, text, text, text);
DROP VIEW usher.stats_callers, usher.stats_devices, usher.stats_countries, usher.stats_streams, usher.stats_users, usher.audience;
DROP FUNCTION usher.roll_audience(date), usher.device_family(text), usher.shorten_addresses(interval), usher.short_device(text),
              usher.short_address(inet), usher.user_print(text, text);
DROP TABLE usher.audience_day, usher.shortened, usher.forgotten, usher.forget_key, usher.audit;
