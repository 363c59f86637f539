-- +goose Up
-- Creates types and functions: takes no lock that anybody could wait for.

-- What the ledger says of one item. kind: 0 a question, 1 a sign, 2 a session that question `ord` ended.
CREATE TYPE usher.ledger_answer AS (
  kind smallint, ord integer,
  decision_id uuid, outcome text, reason text, realm text, user_id text, session_id uuid,
  live boolean, repeated boolean, closed text, holders text,
  outbox bigint, key uuid, subject uuid, stream text, device text, node text, bar_ms bigint, bar_device boolean, at timestamptz
);

CREATE TYPE usher.ledger_verdict AS (
  ord integer, outcome text, reason text, session_id uuid, decision_id uuid, repeated boolean, holders text,
  stored boolean, realm text, user_id text, -- of a question whose row is there already
  expired uuid[], reused uuid[], zapped uuid[], evicted uuid[], denied uuid[]
);

-- +goose StatementBegin
-- device_bar is the key under which opens of a device on a stream are barred.
CREATE FUNCTION usher.device_bar(p_subject uuid, p_stream text, p_device text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT md5(p_subject::text || p_device || chr(1) || p_stream)::uuid $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- courtesy_bar is the key under which a device has lost the courtesy of zapping.
CREATE FUNCTION usher.courtesy_bar(p_subject uuid, p_device text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT md5('courtesy' || p_subject::text || p_device)::uuid $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- end_seats closes the sessions p_ids with a reason each: the row moves to history; an evicted or killed one is
-- barred for p_bar_ms (the key always, the device on the stream where p_bar_device says so); evicted, killed,
-- zapped and replaced ones go to the outbox, since any edge may still answer for them. p_ord is handed through to the
-- answers. The caller holds the rows' locks.
CREATE FUNCTION usher.end_seats(p_now timestamptz, p_ord integer[], p_ids uuid[], p_reasons text[], p_devices text[])
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

-- +goose StatementBegin
-- tick is a sign of life of the ledger. Where nobody gave one for over five seconds, nobody could renew either: every
-- seat lives on by the gap, which is returned in milliseconds (0 where there was none).
CREATE FUNCTION usher.tick() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_last timestamptz;
  v_now  timestamptz;
BEGIN
  SELECT at INTO v_last FROM usher.sweeper_tick FOR UPDATE;
  v_now := clock_timestamp();
  IF v_now - v_last < interval '200 milliseconds' THEN
    RETURN 0;
  END IF;
  UPDATE usher.sweeper_tick SET at = v_now;
  IF v_now - v_last < interval '5 seconds' THEN
    RETURN 0;
  END IF;
  UPDATE usher.seat SET expires_at = expires_at + (v_now - v_last)
   WHERE session_id IN (SELECT session_id FROM usher.seat ORDER BY session_id FOR UPDATE);
  RETURN (extract(epoch FROM v_now - v_last) * 1000)::bigint;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- sweep closes up to p_max seats that have expired and removes bars that are over; it returns how many seats.
CREATE FUNCTION usher.sweep(p_max integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_ids uuid[];
BEGIN
  -- First whoever has expired, by reading the table as it lies; then their locks, in order.
  v_ids := ARRAY(SELECT session_id FROM usher.seat WHERE expires_at <= v_now LIMIT p_max);
  IF v_ids <> '{}' THEN
    v_ids := ARRAY(
      SELECT session_id FROM usher.seat
       WHERE session_id = ANY (v_ids) AND expires_at <= v_now
       ORDER BY session_id FOR UPDATE SKIP LOCKED);
  END IF;
  IF v_ids <> '{}' THEN
    PERFORM usher.end_seats(v_now, array_fill(0, ARRAY[cardinality(v_ids)]), v_ids,
                            array_fill('expired'::text, ARRAY[cardinality(v_ids)]), NULL);
  END IF;
  DELETE FROM usher.bar WHERE until < v_now - interval '1 minute';
  RETURN cardinality(v_ids);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- note_signs renews and closes: renewals first, since a close does nothing if anybody saw life after its sign. Half a
-- second covers what the two ways took. The caller holds the rows' locks.
CREATE FUNCTION usher.note_signs(p_now timestamptz, s_session uuid[], s_age bigint[], s_close boolean[], s_reason text[],
  s_requests bigint[], s_bytes bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_ids  uuid[];
  v_ords integer[];
  v_whys text[];
BEGIN
  UPDATE usher.seat t
     SET last_seen_at = CASE WHEN u.closes THEN t.last_seen_at ELSE greatest(t.last_seen_at, p_now - u.age) END,
         expires_at = CASE WHEN u.closes THEN t.expires_at
                           ELSE greatest(t.expires_at, p_now - u.age + t.seat_ms * interval '1 millisecond') END,
         requests = greatest(t.requests, u.requests), bytes = greatest(t.bytes, u.bytes)
    FROM (SELECT session_id, bool_and(closes) AS closes, max(requests) AS requests, max(bytes) AS bytes,
                 min(age) FILTER (WHERE NOT closes) * interval '1 millisecond' AS age
            FROM unnest(s_session, s_age, s_close, s_requests, s_bytes) AS s(session_id, age, closes, requests, bytes)
           GROUP BY session_id) u
   WHERE t.session_id = u.session_id
     AND (u.closes OR greatest(t.expires_at, p_now - u.age + t.seat_ms * interval '1 millisecond') > p_now);
  IF NOT true = ANY (s_close) THEN
    RETURN;
  END IF;
  SELECT array_agg(session_id), array_agg(0), array_agg(s.reason) INTO v_ids, v_ords, v_whys
    FROM unnest(s_session, s_age, s_close, s_reason) AS s(session_id, age, closes, reason)
    JOIN usher.seat t USING (session_id)
   WHERE s.closes AND t.last_seen_at <= p_now - s.age * interval '1 millisecond' + interval '500 milliseconds';
  IF v_ids IS NOT NULL THEN
    PERFORM usher.end_seats(p_now, v_ords, v_ids, v_whys, NULL);
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- judge decides the opens of one round, no two of which share a subject or a key: a pure reading of the state that
-- the caller has locked. See DESIGN.md §3, The ledger. It is one STABLE query so that it becomes a part of its caller's:
-- a call of its own would cost more than the judging. OFFSET 0 keeps an expression from being worked out once for
-- each mention; without any bars at all, nobody's are looked for.
CREATE FUNCTION usher.judge(p_now timestamptz, p_round integer, p_done integer[], p_open boolean[],
  p_rounds integer[], p_key uuid[], p_subject uuid[], p_token uuid[], p_stream text[], p_device text[], p_still boolean[],
  p_keep boolean[], p_limit integer[], p_mode text[], p_session uuid[], p_replaces uuid[], p_id uuid[], p_reason text[])
RETURNS SETOF usher.ledger_verdict LANGUAGE sql STABLE AS $$
  SELECT v.ord,
         CASE WHEN v.no IS NULL THEN 'allow' ELSE 'deny' END,
         COALESCE(v.no, v.yes),
         CASE WHEN v.no IS NULL THEN CASE WHEN v.same THEN v.same_id ELSE v.session_id END END,
         CASE WHEN v.same AND v.no IS NULL THEN v.same_decision ELSE v.id END,
         v.same AND v.no IS NULL,
         CASE WHEN v.no = 'limit' THEN (
           SELECT json_agg(json_build_object('session_id', h.session_id, 'stream', h.stream, 'node', h.node,
                                             'device', h.device, 'opened_at', h.opened_at))::text
             FROM (SELECT * FROM usher.seat h WHERE h.session_id = ANY (v.stays) ORDER BY h.opened_at, h.session_id LIMIT 10) h) END,
         false, NULL::text, NULL::text,
         v.expired,
         v.reused,
         CASE WHEN v.no IS NULL AND NOT v.same THEN v.zaps END,
         CASE WHEN v.no IS NULL AND NOT v.same AND v.lim >= 0 AND v.n >= v.lim THEN ARRAY(
                SELECT h.session_id FROM usher.seat h WHERE h.session_id = ANY (v.stays)
                 ORDER BY h.opened_at, h.session_id LIMIT v.n - v.lim + 1)
              WHEN v.same AND v.no = 'evicted' THEN ARRAY[v.same_id] END,
         CASE WHEN v.same AND v.no IS DISTINCT FROM 'evicted' AND v.no IS NOT NULL THEN ARRAY[v.same_id] END
    FROM (
      SELECT q.*, COALESCE(k.same, false) AS same, k.session_id AS same_id, k.decision_id AS same_decision, c.n, c.stays, c.zaps,
             CASE WHEN k.gone AND k.subject <> q.subject THEN c.expired || k.session_id ELSE c.expired END AS expired,
             NULLIF(array_remove(ARRAY[CASE WHEN NOT k.same AND NOT k.gone THEN k.session_id END,
                                       NULLIF(q.replaces, k.session_id)], NULL), '{}') AS reused,
             CASE WHEN k.same THEN
                    CASE WHEN q.lim < 0 OR q.keep THEN NULL
                         WHEN q.mode = 'refuse' AND c.older >= q.lim THEN 'limit'
                         WHEN q.mode = 'evict_oldest' AND c.n - c.older >= q.lim THEN 'evicted' END
                  ELSE COALESCE(
                    CASE WHEN EXISTS (SELECT 1 FROM usher.bar) AND NOT q.still THEN (
                      SELECT bar.reason FROM usher.bar
                       WHERE bar.key IN (q.key, usher.device_bar(q.subject, q.stream, q.device)) AND bar.until > p_now
                       ORDER BY bar.until DESC, bar.key = q.key DESC LIMIT 1) END,
                    CASE WHEN q.lim < 0 OR c.n < q.lim THEN NULL
                         WHEN q.mode = 'evict_oldest' AND q.lim > 0 THEN NULL
                         ELSE 'limit' END) END AS no
        FROM (SELECT u.ord::integer AS ord, key, subject, token, stream, device, still, keep, lim, mode, session_id, replaces, id, yes
                FROM unnest(p_open, p_rounds, p_key, p_subject, p_token, p_stream, p_device, p_still, p_keep, p_limit, p_mode, p_session,
                            p_replaces, p_id, p_reason) WITH ORDINALITY
                     AS u(opens, round, key, subject, token, stream, device, still, keep, lim, mode, session_id, replaces, id, yes, ord)
               WHERE u.opens AND u.round = p_round AND (p_done IS NULL OR u.ord <> ALL (p_done))) q
        LEFT JOIN LATERAL (
          SELECT s.session_id, s.subject, s.decision_id, s.opened_at, s.expires_at <= p_now AS gone,
                 s.expires_at > p_now AND (s.subject = q.subject OR q.keep) AND s.stream = q.stream AND s.device = q.device
                   AND (q.token IS NULL OR q.token IS NOT DISTINCT FROM s.token)
                   AND s.session_id IS DISTINCT FROM q.replaces AS same
            FROM usher.seat s WHERE s.key = q.key) k ON true
        CROSS JOIN LATERAL (
          SELECT count(*) FILTER (WHERE z.stays)::integer AS n,
                 count(*) FILTER (WHERE z.stays AND (z.opened_at, z.session_id) < (k.opened_at, k.session_id))::integer AS older,
                 array_agg(z.session_id) FILTER (WHERE z.stays) AS stays,
                 array_agg(z.session_id) FILTER (WHERE z.zap AND z.alive) AS zaps,
                 array_agg(z.session_id) FILTER (WHERE NOT z.alive) AS expired
            FROM (SELECT y.*, y.alive AND NOT y.self AND NOT y.zap AS stays
                    FROM (SELECT s.session_id, s.opened_at, s.expires_at > p_now AS alive,
                                 s.key = q.key OR s.session_id IS NOT DISTINCT FROM q.replaces AS self,
                                 s.key <> q.key AND s.session_id IS DISTINCT FROM q.replaces AND k.same IS NOT TRUE
                                   AND s.device = q.device AND s.stream <> q.stream AND NOT q.still
                                   AND NOT (EXISTS (SELECT 1 FROM usher.bar) AND EXISTS (
                                     SELECT 1 FROM usher.bar
                                      WHERE bar.key = usher.courtesy_bar(q.subject, q.device) AND bar.until > p_now)) AS zap
                            FROM usher.seat s WHERE s.subject = q.subject OFFSET 0) y OFFSET 0) z) c
      OFFSET 0) v
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- apply is the ledger: it acts as if its items were applied one after another (signs first, then audits and opens,
-- round by round), and answers with each item's state after all of them. Strict, because the subjects are locked in
-- one statement, in key order, and counted in later ones; without deadlock, because all seats that the call may touch
-- are locked in one more ordered statement after that. q_round keeps apart the opens that share a subject or a key;
-- p_rounds is the last of them. q_steps of an open is a JSON array without its last bracket.
-- SQLSTATE UR001, or 23505 of a decision: a question's id is stored already; call again with p_check. 23505 of seat_key: a
-- session key was taken meanwhile; call again. Statements are few and skipped where they can be: of a small batch
-- most of the time goes into beginning each.
CREATE FUNCTION usher.apply(p_check boolean, p_rounds integer,
  q_open boolean[], q_round integer[], q_id uuid[], q_at timestamptz[], q_region text[], q_edge text[], q_node text[],
  q_caller text[], q_stream text[], q_realm text[], q_user text[], q_ip inet[], q_agent text[], q_revision bigint[],
  q_trace uuid[], q_us bigint[], q_steps text[], q_outcome text[], q_reason text[], q_close uuid[], q_session uuid[],
  q_replaces uuid[], q_key uuid[], q_subject uuid[], q_token uuid[], q_device text[], q_still boolean[], q_keep boolean[],
  q_limit integer[],
  q_mode text[], q_seat bigint[], q_lease bigint[],
  s_session uuid[], s_age bigint[], s_close boolean[], s_reason text[], s_requests bigint[], s_bytes bigint[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE
-- The plan for an empty table must not be a scan that stays when the table has grown.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  v_start  timestamptz := clock_timestamp();
  v_now    timestamptz;
  v_tick   timestamptz;
  v_all    usher.ledger_verdict[] := '{}'; -- of opens, and of all that is stored already
  v_round  usher.ledger_verdict[];
  v_done   integer[];                      -- the questions that are stored already
  v_ended  usher.ledger_answer[] := '{}';
  v_ends   usher.ledger_answer[];
  v_ids    uuid[];
  v_ords   integer[];
  v_whys   text[];
  v_by     text[];
  v_opens  boolean; -- a round's: somebody gets a seat, goes on, is ended
  v_goes   boolean;
  v_ending boolean;
  v_went   boolean := false; -- of any round
  v_any    boolean := false;
  v_us     bigint;
BEGIN
  -- Before any other lock: after a gap in which nobody could renew, every seat lives on by that gap.
  -- The sweeper ticks each second; where it is away we do, long before that looks like a gap.
  SELECT at INTO v_tick FROM usher.sweeper_tick;
  IF v_tick < v_start - interval '2500 milliseconds' THEN
    PERFORM usher.tick();
  END IF;

  IF p_rounds > 0 THEN
    INSERT INTO usher.subject (key)
    SELECT DISTINCT u FROM unnest(q_subject) u WHERE u IS NOT NULL ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM usher.subject WHERE key = ANY (q_subject) ORDER BY key FOR NO KEY UPDATE;
  END IF;

  PERFORM 1 FROM usher.seat
    WHERE session_id = ANY (ARRAY(
            SELECT session_id FROM usher.seat WHERE subject = ANY (q_subject)
            UNION ALL SELECT session_id FROM usher.seat WHERE key = ANY (q_key)
            UNION ALL SELECT unnest(q_replaces || q_close || s_session)))
    ORDER BY session_id FOR UPDATE;
  -- The clock is read after the locks: what expired while we waited has expired.
  v_now := clock_timestamp();

  IF p_check THEN
    SELECT array_agg(d), array_agg(d.ord) INTO v_all, v_done
      FROM (SELECT u.ord::integer AS ord, d.outcome, d.reason, d.session_id, d.decision_id, true, NULL::text, true, d.realm, d.user_id,
                   NULL::uuid[], NULL::uuid[], NULL::uuid[], NULL::uuid[], NULL::uuid[]
              FROM unnest(q_at, q_id) WITH ORDINALITY AS u(at, id, ord)
              JOIN usher.decision d ON d.at = u.at AND d.decision_id = u.id) d;
  END IF;

  IF cardinality(s_session) > 0 THEN
    PERFORM usher.note_signs(v_now, s_session, s_age, s_close, s_reason, s_requests, s_bytes);
  END IF;

  -- A re-decision that the checks refused ends its session.
  IF cardinality(array_remove(q_close, NULL)) > 0 THEN
    SELECT array_agg(u.id), array_agg(0), array_agg('denied'::text) INTO v_ids, v_ords, v_whys
      FROM unnest(q_close) WITH ORDINALITY AS u(id, ord)
     WHERE u.id IS NOT NULL AND (v_done IS NULL OR u.ord <> ALL (v_done));
    IF v_ids IS NOT NULL THEN
      PERFORM usher.end_seats(v_now, v_ords, v_ids, v_whys, NULL);
      v_any := true;
    END IF;
  END IF;

  FOR r IN 1 .. p_rounds LOOP
    SELECT array_agg(j), bool_or(j.outcome = 'allow' AND NOT j.repeated), bool_or(j.repeated),
           bool_or(COALESCE(j.expired, j.reused, j.zapped, j.evicted, j.denied) IS NOT NULL)
      INTO v_round, v_opens, v_goes, v_ending
      FROM usher.judge(v_now, r, v_done, q_open, q_round, q_key, q_subject, q_token, q_stream, q_device,
                       q_still, q_keep, q_limit, q_mode, q_session, q_replaces, q_id, q_reason) j;
    CONTINUE WHEN v_round IS NULL;
    v_all := v_all || v_round;

    IF v_ending THEN
      SELECT array_agg(x.ord), array_agg(x.id), array_agg(x.reason), array_agg(q_device[x.ord]) INTO v_ords, v_ids, v_whys, v_by
        FROM (SELECT v.ord, unnest(v.expired) AS id, 'expired' AS reason FROM unnest(v_round) v WHERE v.expired IS NOT NULL
              UNION ALL SELECT v.ord, unnest(v.reused), 'id_reused' FROM unnest(v_round) v WHERE v.reused IS NOT NULL
              UNION ALL SELECT v.ord, unnest(v.zapped), 'zapped' FROM unnest(v_round) v WHERE v.zapped IS NOT NULL
              UNION ALL SELECT v.ord, unnest(v.evicted), 'evicted' FROM unnest(v_round) v WHERE v.evicted IS NOT NULL
              UNION ALL SELECT v.ord, unnest(v.denied), 'denied' FROM unnest(v_round) v WHERE v.denied IS NOT NULL) x;
      SELECT array_agg(e) INTO v_ends FROM usher.end_seats(v_now, v_ords, v_ids, v_whys, v_by) e;
      v_ended := v_ended || COALESCE(v_ends, '{}');
      v_any := true;
    END IF;

    IF v_opens THEN
      INSERT INTO usher.seat (session_id, key, subject, token, decision_id, opened_at, last_seen_at, expires_at, seat_ms, lease_ms,
             realm, user_id, stream, device, node, caller, region, edge, ip, user_agent)
      SELECT q.session_id, q.key, q.subject, q.token, q.decision_id, v_now, v_now, v_now + q.seat * interval '1 millisecond',
             q.seat, q.lease, q.realm, q.usr, q.stream, q.device, q.node, q.caller, q.region, q.edge, q.ip, q.agent
        FROM unnest(q_id, q_session, q_key, q_subject, q_token, q_seat, q_lease, q_realm, q_user, q_stream, q_device, q_node,
                    q_caller, q_region, q_edge, q_ip, q_agent) WITH ORDINALITY
             AS q(decision_id, session_id, key, subject, token, seat, lease, realm, usr, stream, device, node,
                  caller, region, edge, ip, agent, ord)
        JOIN unnest(v_round) v ON v.ord = q.ord
       WHERE v.outcome = 'allow' AND NOT v.repeated
       ORDER BY q.key;
    END IF;

    IF v_goes THEN
      v_went := true;
      UPDATE usher.seat t
         SET rechecks = t.rechecks + 1, last_seen_at = v_now, seat_ms = q_seat[v.ord],
             lease_ms = greatest(t.lease_ms, q_lease[v.ord]),
             expires_at = greatest(t.expires_at, v_now + q_seat[v.ord] * interval '1 millisecond')
        FROM unnest(v_round) v
       WHERE v.repeated AND t.session_id = v.session_id;
    END IF;
    IF true = ANY (q_still) THEN
      INSERT INTO usher.bar (key, until, reason)
      SELECT DISTINCT usher.courtesy_bar(q_subject[v.ord], q_device[v.ord]), v_now + interval '1 hour', 'courtesy'
        FROM unnest(v_round) v WHERE q_still[v.ord] ORDER BY 1
      ON CONFLICT (key) DO UPDATE SET until = EXCLUDED.until;
    END IF;
  END LOOP;

  -- An open whose seat a later round took was never let in; only a zapped one is tolerated for a while.
  IF p_rounds > 1 THEN
    v_all := ARRAY(
      SELECT CASE WHEN v.outcome = 'allow' AND NOT v.stored
                   AND NOT EXISTS (SELECT 1 FROM usher.seat t WHERE t.session_id = v.session_id)
                   AND NOT EXISTS (SELECT 1 FROM unnest(v_ended) e WHERE e.session_id = v.session_id AND e.reason = 'zapped')
                  THEN (v.ord, 'deny', 'evicted', v.session_id, q_id[v.ord], v.repeated, v.holders, false, NULL, NULL,
                        NULL, NULL, NULL, NULL, NULL)::usher.ledger_verdict
                  ELSE v END
        FROM unnest(v_all) v);
  END IF;

  -- A question that repeats a session writes no row that would show that it is stored itself.
  IF v_went AND NOT p_check THEN
    PERFORM 1 FROM unnest(v_all) v JOIN usher.decision d ON d.at = q_at[v.ord] AND d.decision_id = q_id[v.ord]
      WHERE v.repeated AND v.decision_id <> q_id[v.ord];
    IF FOUND THEN
      RAISE EXCEPTION 'a question is stored already' USING ERRCODE = 'UR001';
    END IF;
  END IF;

  IF cardinality(q_id) > 0 THEN
    v_us := extract(epoch FROM clock_timestamp() - v_start) * 1000000;
    RETURN QUERY
    WITH answered AS MATERIALIZED (
      SELECT q.*, v.session_id, v.decision_id, v.repeated, v.holders, v.stored, v.realm AS stored_realm, v.user_id AS stored_user,
             COALESCE(v.outcome, q.said) AS outcome, COALESCE(v.reason, q.because) AS reason,
             v.ord IS NULL OR NOT v.stored AND (v.outcome = 'deny' OR NOT v.repeated) AS written
        FROM unnest(q_open, q_id, q_at, q_trace, q_revision, q_us, q_steps, q_outcome, q_reason, q_region, q_edge, q_node,
                    q_caller, q_stream, q_realm, q_user, q_ip) WITH ORDINALITY
             AS q(opens, id, at, trace, revision, us, steps, said, because, region, edge, node, caller, stream, realm, usr, ip, n)
        LEFT JOIN unnest(v_all) v ON v.ord = q.n
    ), written AS (
      INSERT INTO usher.decision (at, decision_id, session_id, trace_id, policy_revision, duration_us, outcome, reason,
             region, edge, node, caller, stream, realm, user_id, ip)
      SELECT at, id, session_id, trace, revision, us + v_us, outcome, reason, region, edge, node, caller, stream, realm, usr, ip
        FROM answered
       WHERE written
       ORDER BY id
    ), steps AS (
      INSERT INTO usher.decision_steps (at, decision_id, steps)
      SELECT at, id,
             CASE WHEN opens THEN steps || CASE WHEN steps = '[' THEN '' ELSE ',' END || '{"n":"seat","r":' || to_json(reason)::text
               || COALESCE(',"t":' || to_json(holders)::text, '') || ',"us":' || v_us::text || '}]'
             ELSE steps END
        FROM answered
       WHERE written
    )
    SELECT 0::smallint, q.n::integer - 1, COALESCE(q.decision_id, q.id), q.outcome, q.reason,
           COALESCE(q.stored_realm, q.realm), CASE WHEN q.stored THEN q.stored_user ELSE q.usr END, q.session_id,
           CASE WHEN p_check OR p_rounds > 1 OR v_any THEN
             EXISTS (SELECT 1 FROM usher.seat t WHERE t.session_id = q.session_id)
           ELSE q.session_id IS NOT NULL END, COALESCE(q.repeated, false), NULL::text, q.holders,
           NULL::bigint, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::bigint, NULL::boolean, v_now
      FROM answered q;
  END IF;
  IF cardinality(s_session) > 0 THEN
    RETURN QUERY
    SELECT 1::smallint, u.ord::integer - 1, NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::text, u.session_id,
           t.session_id IS NOT NULL, NULL::boolean,
           CASE WHEN t.session_id IS NULL THEN
             (SELECT h.close_reason FROM usher.session_history h WHERE h.session_id = u.session_id ORDER BY h.closed_at DESC LIMIT 1) END,
           NULL::text, NULL::bigint, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::bigint, NULL::boolean, v_now
      FROM unnest(s_session) WITH ORDINALITY AS u(session_id, ord)
      LEFT JOIN usher.seat t ON t.session_id = u.session_id;
  END IF;
  IF cardinality(v_ended) > 0 THEN
    RETURN QUERY
    SELECT e.kind, e.ord - 1, e.decision_id, e.outcome, e.reason, e.realm, e.user_id, e.session_id, e.live, e.repeated, e.closed,
           e.holders, e.outbox, e.key, e.subject, e.stream, e.device, e.node, e.bar_ms, e.bar_device, e.at
      FROM unnest(v_ended) e;
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- kill ends a session at an operator's word: nobody may reopen it for p_bar_ms. NULL if it is not live.
CREATE FUNCTION usher.kill(p_session uuid, p_bar_ms bigint) RETURNS SETOF usher.ledger_answer
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  UPDATE usher.seat SET lease_ms = greatest(lease_ms, p_bar_ms) WHERE session_id = p_session;
  RETURN QUERY SELECT * FROM usher.end_seats(clock_timestamp(), ARRAY[0], ARRAY[p_session], ARRAY['killed'], NULL);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION usher.kill(uuid, bigint);
DROP FUNCTION usher.apply;
DROP FUNCTION usher.judge;
DROP FUNCTION usher.note_signs;
DROP FUNCTION usher.sweep(integer);
DROP FUNCTION usher.tick();
DROP FUNCTION usher.end_seats;
DROP FUNCTION usher.courtesy_bar(uuid, text);
DROP FUNCTION usher.device_bar(uuid, text, text);
DROP TYPE usher.ledger_verdict;
DROP TYPE usher.ledger_answer;
