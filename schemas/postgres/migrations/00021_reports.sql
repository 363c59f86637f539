-- +goose Up
-- Adds three columns without writing a row and an index to partitions that are empty (a moment's lock each), then replaces a
-- function.

-- key finds what a node says of a session after it was closed. playing_ms is how long it played and close_detail why it ended, in
-- the node's own word; null where the node said nothing.
ALTER TABLE usher.session_history ADD COLUMN key uuid, ADD COLUMN playing_ms bigint, ADD COLUMN close_detail text;

-- Partitions with rows go without: building it there would hold up whoever closes a session, and these rows have no key.
CREATE INDEX session_history_key ON ONLY usher.session_history (key) WHERE key IS NOT NULL;
-- +goose StatementBegin
DO $$
DECLARE
  v_part text;
  v_rows boolean;
BEGIN
  FOR v_part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.session_history'::regclass LOOP
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM usher.%I)', v_part) INTO v_rows;
    CONTINUE WHEN v_rows;
    EXECUTE format('CREATE INDEX %I ON usher.%I (key) WHERE key IS NOT NULL', v_part || '_key', v_part);
    EXECUTE format('ALTER INDEX usher.session_history_key ATTACH PARTITION usher.%I', v_part || '_key');
  END LOOP;
END $$;
-- +goose StatementEnd

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
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country, key)
    SELECT p_now, session_id, decision_id, opened_at, last_seen_at, reason, requests,
           bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country, key
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

-- +goose Down
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

DROP INDEX usher.session_history_key;
ALTER TABLE usher.session_history DROP COLUMN close_detail, DROP COLUMN playing_ms, DROP COLUMN key;
