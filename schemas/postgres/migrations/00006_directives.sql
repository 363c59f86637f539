-- +goose Up
-- Creates a table, two views and a function, and replaces a function by one that knows two more reasons: takes no
-- lock that anybody could wait for.

-- What operators order beside the policy. A row never changes but for being revoked and told. told_at is null while the
-- edges and workers have not heard of its latest state: it is its own outbox. Ended rows stay for audit.
CREATE TABLE usher.directive (
  id             uuid        NOT NULL PRIMARY KEY,
  kind           text        NOT NULL CHECK (kind IN ('ban', 'override')),
  action         text        NOT NULL CHECK (action IN ('deny', 'allow', 'limit')),
  "limit"        integer     CHECK ("limit" > 0),
  realm          text,
  user_id        text,
  network        cidr,
  stream         text,
  node           text,
  check_name     text,
  device         text,
  token          uuid,
  at             timestamptz NOT NULL,
  until          timestamptz,
  reason         text        NOT NULL CHECK (reason <> ''),
  author         text        NOT NULL CHECK (author <> ''),
  revoked_at     timestamptz,
  revoked_by     text,
  revoked_reason text,
  told_at        timestamptz,
  CHECK (num_nonnulls(realm, network, stream, node, check_name, device, token) > 0),
  CHECK (user_id IS NULL OR realm IS NOT NULL),
  CHECK ((action = 'limit') = ("limit" IS NOT NULL)),
  CHECK (kind <> 'ban' OR action = 'deny'),
  CHECK (kind <> 'override' OR until IS NOT NULL),
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX directive_untold ON usher.directive (at) WHERE told_at IS NULL;
CREATE INDEX directive_at ON usher.directive (at);

-- What is in force. A token is told by its fingerprint alone.
CREATE VIEW usher.bans AS
SELECT id, realm, user_id, network, stream, node, device, replace(token::text, '-', '') AS token, at, until, reason, author
  FROM usher.directive
 WHERE kind = 'ban' AND revoked_at IS NULL AND (until IS NULL OR until > now());

CREATE VIEW usher.overrides AS
SELECT id, action, "limit", realm, user_id, network, stream, node, check_name, device, replace(token::text, '-', '') AS token,
       at, until, reason, author
  FROM usher.directive
 WHERE kind = 'override' AND revoked_at IS NULL AND until > now();

GRANT SELECT ON usher.bans, usher.overrides TO usher_reader;

-- +goose StatementBegin
-- end_seats closes the sessions p_ids with a reason each: the row moves to history; an evicted or killed one is
-- barred for its lease (the key always, the device on the stream unless it evicted itself); evicted, killed,
-- zapped, replaced, banned and overridden ones go to the outbox, since any edge may still answer for them. A ban bars by
-- itself, as long as it is in force and no longer. p_ord is handed through to the
-- answers. The caller holds the rows' locks.
CREATE OR REPLACE FUNCTION usher.end_seats(p_now timestamptz, p_ord integer[], p_ids uuid[], p_reasons text[], p_devices text[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  -- plpgsql, not sql: its plans are kept from call to call.
  RETURN QUERY
  WITH gone AS (
    DELETE FROM usher.seat s
     USING (SELECT DISTINCT ON (id) * FROM unnest(p_ord, p_ids, p_reasons, p_devices) AS u(ord, id, reason, by_device)
             ORDER BY id, ord) x
     WHERE s.session_id = x.id
    RETURNING x.ord, CASE WHEN x.reason = 'id_reused' AND s.expires_at <= p_now THEN 'expired' ELSE x.reason END AS reason,
              x.reason IN ('evicted', 'killed') AS barred,
              x.reason IN ('evicted', 'killed') AND x.by_device IS DISTINCT FROM s.device AS bar_device, s.*
  ), hist AS (
    INSERT INTO usher.session_history (closed_at, session_id, decision_id, opened_at, last_seen_at, close_reason, requests,
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country)
    SELECT p_now, session_id, decision_id, opened_at, last_seen_at, reason, requests,
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country
      FROM gone
  ), bars AS (
    INSERT INTO usher.bar (key, until, reason)
    SELECT k, max(p_now + lease_ms * interval '1 millisecond'), min(reason)
      FROM (SELECT key AS k, lease_ms, reason FROM gone WHERE barred
            UNION ALL
            SELECT usher.device_bar(subject, stream, device), lease_ms, reason FROM gone WHERE bar_device) b
     GROUP BY k ORDER BY k
    ON CONFLICT (key) DO UPDATE SET until = greatest(bar.until, EXCLUDED.until), reason = EXCLUDED.reason
  ), told AS (
    INSERT INTO usher.outbox (at, session_id, key, subject, realm, user_id, stream, device, node, reason, bar_ms, bar_device)
    SELECT p_now, session_id, key, subject, realm, user_id, stream, device, node, reason,
           CASE WHEN barred THEN lease_ms ELSE 0 END, bar_device
      FROM gone WHERE reason IN ('evicted', 'killed', 'zapped', 'id_reused', 'banned', 'override')
    RETURNING *
  )
  SELECT 2::smallint, g.ord, NULL::uuid, NULL::text, t.reason, t.realm, t.user_id, t.session_id, false, false, t.reason, NULL::text,
         t.id, t.key, t.subject, t.stream, t.device, t.node, t.bar_ms, t.bar_device, t.at
    FROM told t JOIN gone g USING (session_id);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- refuse_seats ends the sessions p_ids that are still live, each for its reason, and writes what the edges must hear.
-- Locks come in the order in which the ledger takes them.
CREATE FUNCTION usher.refuse_seats(p_ids uuid[], p_reasons text[]) RETURNS SETOF usher.ledger_answer
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF cardinality(p_ids) = 0 THEN
    RETURN;
  END IF;
  PERFORM 1 FROM usher.seat WHERE session_id = ANY (p_ids) ORDER BY session_id FOR UPDATE;
  RETURN QUERY SELECT * FROM usher.end_seats(clock_timestamp(), array_fill(0, ARRAY[cardinality(p_ids)]), p_ids, p_reasons, NULL);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION usher.refuse_seats(uuid[], text[]);
DROP VIEW usher.overrides;
DROP VIEW usher.bans;
DROP TABLE usher.directive;

-- +goose StatementBegin
-- end_seats closes the sessions p_ids with a reason each: the row moves to history; an evicted or killed one is
-- barred for p_bar_ms (the key always, the device on the stream where p_bar_device says so); evicted, killed,
-- zapped and replaced ones go to the outbox, since any edge may still answer for them. p_ord is handed through to the
-- answers. The caller holds the rows' locks.
CREATE OR REPLACE FUNCTION usher.end_seats(p_now timestamptz, p_ord integer[], p_ids uuid[], p_reasons text[], p_devices text[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  -- plpgsql, not sql: its plans are kept from call to call.
  RETURN QUERY
  WITH gone AS (
    DELETE FROM usher.seat s
     USING (SELECT DISTINCT ON (id) * FROM unnest(p_ord, p_ids, p_reasons, p_devices) AS u(ord, id, reason, by_device)
             ORDER BY id, ord) x
     WHERE s.session_id = x.id
    RETURNING x.ord, CASE WHEN x.reason = 'id_reused' AND s.expires_at <= p_now THEN 'expired' ELSE x.reason END AS reason,
              x.reason IN ('evicted', 'killed') AS barred,
              x.reason IN ('evicted', 'killed') AND x.by_device IS DISTINCT FROM s.device AS bar_device, s.*
  ), hist AS (
    INSERT INTO usher.session_history (closed_at, session_id, decision_id, opened_at, last_seen_at, close_reason, requests,
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country)
    SELECT p_now, session_id, decision_id, opened_at, last_seen_at, reason, requests,
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country
      FROM gone
  ), bars AS (
    INSERT INTO usher.bar (key, until, reason)
    SELECT k, max(p_now + lease_ms * interval '1 millisecond'), min(reason)
      FROM (SELECT key AS k, lease_ms, reason FROM gone WHERE barred
            UNION ALL
            SELECT usher.device_bar(subject, stream, device), lease_ms, reason FROM gone WHERE bar_device) b
     GROUP BY k ORDER BY k
    ON CONFLICT (key) DO UPDATE SET until = greatest(bar.until, EXCLUDED.until), reason = EXCLUDED.reason
  ), told AS (
    INSERT INTO usher.outbox (at, session_id, key, subject, realm, user_id, stream, device, node, reason, bar_ms, bar_device)
    SELECT p_now, session_id, key, subject, realm, user_id, stream, device, node, reason,
           CASE WHEN barred THEN lease_ms ELSE 0 END, bar_device
      FROM gone WHERE reason IN ('evicted', 'killed', 'zapped', 'id_reused')
    RETURNING *
  )
  SELECT 2::smallint, g.ord, NULL::uuid, NULL::text, t.reason, t.realm, t.user_id, t.session_id, false, false, t.reason, NULL::text,
         t.id, t.key, t.subject, t.stream, t.device, t.node, t.bar_ms, t.bar_device, t.at
    FROM told t JOIN gone g USING (session_id);
END $$;
-- +goose StatementEnd
