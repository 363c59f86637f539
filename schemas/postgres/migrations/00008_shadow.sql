-- +goose Up
-- Adds two columns without writing a row and an index to partitions that are still empty (a moment's lock each), then types
-- and functions. What it replaces stays, for programs of the version before.

-- shadow: taken while the policy is tried out; beyond: an enforced policy would have refused or ended it.
ALTER TABLE usher.seat ADD COLUMN shadow boolean NOT NULL DEFAULT false, ADD COLUMN beyond boolean NOT NULL DEFAULT false;

-- What an enforced policy would have said, and why; null where it was enforced.
ALTER TABLE usher.decision ADD COLUMN would_reason text, ADD COLUMN would_rule text;

-- Only rows of questions in shadow are in it. Partitions of today and before go without: building it there would hold up
-- whoever writes, and they have hardly such rows.
CREATE INDEX decision_would ON ONLY usher.decision (at) WHERE would IS NOT NULL;
-- +goose StatementBegin
DO $$
DECLARE
  v_part text;
BEGIN
  FOR v_part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.decision'::regclass AND right(c.relname, 8) > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') LOOP
    EXECUTE format('CREATE INDEX %I ON usher.%I (at) WHERE would IS NOT NULL', v_part || '_would', v_part);
    EXECUTE format('ALTER INDEX usher.decision_would ATTACH PARTITION usher.%I', v_part || '_would');
  END LOOP;
END $$;
-- +goose StatementEnd

CREATE OR REPLACE VIEW usher.decisions AS
SELECT d.decision_id, d.at, d.region, d.edge, d.node, d.caller, d.stream, d.realm, d.user_id, d.ip,
       d.outcome, d.would, d.reason, d.policy_revision, d.session_id,
       replace(d.trace_id::text, '-', '') AS trace_id, d.duration_us, d.repeats, s.steps::jsonb AS steps, d.would_reason, d.would_rule
  FROM usher.decision d
  LEFT JOIN usher.decision_steps s ON s.at = d.at AND s.decision_id = d.decision_id;

-- usher.ledger_verdict and what an enforced limit would have done: refused (why), or ended whom.
CREATE TYPE usher.ledger_ruling AS (
  ord integer, outcome text, reason text, session_id uuid, decision_id uuid, repeated boolean, holders text,
  stored boolean, realm text, user_id text,
  expired uuid[], reused uuid[], zapped uuid[], evicted uuid[], denied uuid[],
  wouldnt text, would_end uuid[], shadow boolean
);

-- +goose StatementBegin
-- judge is that of 00004, for limits in shadow too (libs/admission/README.md).
CREATE FUNCTION usher.judge(p_now timestamptz, p_round integer, p_done integer[], p_open boolean[],
  p_rounds integer[], p_key uuid[], p_subject uuid[], p_token uuid[], p_stream text[], p_device text[], p_still boolean[],
  p_keep boolean[], p_limit integer[], p_mode text[], p_session uuid[], p_replaces uuid[], p_id uuid[], p_reason text[], p_shadow boolean[])
RETURNS SETOF usher.ledger_ruling LANGUAGE sql STABLE AS $$
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
         CASE WHEN v.no IS NULL AND NOT v.same AND NOT v.shadow AND v.lim >= 0 AND v.n >= v.lim THEN ARRAY(
                SELECT h.session_id FROM usher.seat h WHERE h.session_id = ANY (v.stays)
                 ORDER BY h.opened_at, h.session_id LIMIT v.n - v.lim + 1)
              WHEN v.same AND v.no = 'evicted' THEN ARRAY[v.same_id] END,
         CASE WHEN v.same AND v.no IS DISTINCT FROM 'evicted' AND v.no IS NOT NULL THEN ARRAY[v.same_id] END,
         v.wouldnt, v.would_end, COALESCE(v.shadow, false)
    FROM (
      -- In shadow a full limit refuses nobody, and nobody is ended for it; what it would have done is told.
      SELECT w.*,
             CASE WHEN w.shadow AND w.verdict IN ('limit', 'evicted') THEN NULL ELSE w.verdict END AS no,
             CASE WHEN w.shadow AND w.verdict IN ('limit', 'evicted') THEN w.verdict END AS wouldnt,
             CASE WHEN w.shadow AND w.verdict IS NULL AND NOT w.same AND w.lim >= 0 AND w.n >= w.lim THEN ARRAY(
                    SELECT h.session_id FROM usher.seat h WHERE h.session_id = ANY (w.stays)
                     ORDER BY h.opened_at, h.session_id LIMIT w.n - w.lim + 1) END AS would_end
        FROM (
      SELECT q.*, COALESCE(k.same, false) AS same, k.session_id AS same_id, k.decision_id AS same_decision, c.n, c.stays, c.zaps,
             CASE WHEN k.gone AND k.subject <> q.subject THEN c.expired || k.session_id ELSE c.expired END AS expired,
             NULLIF(array_remove(ARRAY[CASE WHEN NOT k.same AND NOT k.gone THEN k.session_id END,
                                       NULLIF(q.replaces, k.session_id)], NULL), '{}') AS reused,
             CASE WHEN k.same THEN
                    CASE WHEN q.lim < 0 OR q.keep THEN NULL
                         -- A seat that did not count so far needs a free one, as if it were opened now.
                         WHEN k.apart THEN CASE WHEN c.n < q.lim THEN NULL WHEN q.mode = 'refuse' THEN 'limit' ELSE 'evicted' END
                         WHEN q.mode = 'refuse' AND c.older >= q.lim THEN 'limit'
                         WHEN q.mode = 'evict_oldest' AND c.n - c.older >= q.lim THEN 'evicted' END
                  ELSE COALESCE(
                    CASE WHEN EXISTS (SELECT 1 FROM usher.bar) AND NOT q.still THEN (
                      SELECT bar.reason FROM usher.bar
                       WHERE bar.key IN (q.key, usher.device_bar(q.subject, q.stream, q.device)) AND bar.until > p_now
                       ORDER BY bar.until DESC, bar.key = q.key DESC LIMIT 1) END,
                    CASE WHEN q.lim < 0 OR c.n < q.lim THEN NULL
                         WHEN q.mode = 'evict_oldest' AND q.lim > 0 THEN NULL
                         ELSE 'limit' END) END AS verdict
        FROM (SELECT u.ord::integer AS ord, key, subject, token, stream, device, still, keep, lim, mode, session_id, replaces, id, yes,
                     COALESCE(shadow, false) AS shadow
                FROM unnest(p_open, p_rounds, p_key, p_subject, p_token, p_stream, p_device, p_still, p_keep, p_limit, p_mode, p_session,
                            p_replaces, p_id, p_reason, p_shadow) WITH ORDINALITY
                     AS u(opens, round, key, subject, token, stream, device, still, keep, lim, mode, session_id, replaces, id, yes, shadow, ord)
               WHERE u.opens AND u.round = p_round AND (p_done IS NULL OR u.ord <> ALL (p_done))) q
        LEFT JOIN LATERAL (
          SELECT s.session_id, s.subject, s.decision_id, s.opened_at, s.expires_at <= p_now AS gone,
                 CASE WHEN q.shadow THEN s.beyond ELSE s.shadow END AS apart,
                 s.expires_at > p_now AND (s.subject = q.subject OR q.keep) AND s.stream = q.stream AND s.device = q.device
                   AND (q.token IS NULL OR q.token IS NOT DISTINCT FROM s.token)
                   AND s.session_id IS DISTINCT FROM q.replaces AS same
            FROM usher.seat s WHERE s.key = q.key) k ON true
        CROSS JOIN LATERAL (
          -- Seats that were taken in shadow are counted by shadow alone: an enforced limit neither sees nor ends them. Those
          -- that enforcement would have refused or ended (beyond) are counted by nobody.
          SELECT count(*) FILTER (WHERE z.stays AND CASE WHEN q.shadow THEN NOT z.beyond ELSE NOT z.shadow END)::integer AS n,
                 count(*) FILTER (WHERE z.stays AND CASE WHEN q.shadow THEN NOT z.beyond ELSE NOT z.shadow END AND (z.opened_at, z.session_id) < (k.opened_at, k.session_id))::integer AS older,
                 array_agg(z.session_id) FILTER (WHERE z.stays AND CASE WHEN q.shadow THEN NOT z.beyond ELSE NOT z.shadow END) AS stays,
                 array_agg(z.session_id) FILTER (WHERE z.zap AND z.alive) AS zaps,
                 array_agg(z.session_id) FILTER (WHERE NOT z.alive) AS expired
            FROM (SELECT y.*, y.alive AND NOT y.self AND NOT y.zap AS stays
                    FROM (SELECT s.session_id, s.opened_at, s.shadow, s.beyond, s.expires_at > p_now AS alive,
                                 s.key = q.key OR s.session_id IS NOT DISTINCT FROM q.replaces AS self,
                                 s.key <> q.key AND s.session_id IS DISTINCT FROM q.replaces AND k.same IS NOT TRUE
                                   AND s.device = q.device AND s.stream <> q.stream AND NOT q.still AND s.shadow = q.shadow
                                   AND NOT (EXISTS (SELECT 1 FROM usher.bar) AND EXISTS (
                                     SELECT 1 FROM usher.bar
                                      WHERE bar.key = usher.courtesy_bar(q.subject, q.device) AND bar.until > p_now)) AS zap
                            FROM usher.seat s WHERE s.subject = q.subject OFFSET 0) y OFFSET 0) z) c
        OFFSET 0) w
      OFFSET 0) v
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- apply is that of 00004, with five more of each question: what the policy would have said, why and by which rule, the viewer's country,
-- and whether its limit is in shadow. Of a question in shadow `closed` of the answer is what would have been.
CREATE FUNCTION usher.apply(p_check boolean, p_rounds integer,
  q_open boolean[], q_round integer[], q_id uuid[], q_at timestamptz[], q_region text[], q_edge text[], q_node text[],
  q_caller text[], q_stream text[], q_realm text[], q_user text[], q_ip inet[], q_agent text[], q_revision bigint[],
  q_trace uuid[], q_us bigint[], q_steps text[], q_outcome text[], q_reason text[], q_close uuid[], q_session uuid[],
  q_replaces uuid[], q_key uuid[], q_subject uuid[], q_token uuid[], q_device text[], q_still boolean[], q_keep boolean[],
  q_limit integer[],
  q_mode text[], q_seat bigint[], q_lease bigint[], q_would text[], q_would_reason text[],
  q_would_rule text[], q_country text[], q_shadow boolean[],
  s_session uuid[], s_age bigint[], s_close boolean[], s_reason text[], s_requests bigint[], s_bytes bigint[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE
-- The plan for an empty table must not be a scan that stays when the table has grown.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  v_start  timestamptz := clock_timestamp();
  v_now    timestamptz;
  v_tick   timestamptz;
  v_all    usher.ledger_ruling[] := '{}'; -- of opens, and of all that is stored already
  v_round  usher.ledger_ruling[];
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
                   NULL::uuid[], NULL::uuid[], NULL::uuid[], NULL::uuid[], NULL::uuid[], NULL::text, NULL::uuid[], false
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
                       q_still, q_keep, q_limit, q_mode, q_session, q_replaces, q_id, q_reason, q_shadow) j;
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
             realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country, shadow, beyond)
      SELECT q.session_id, q.key, q.subject, q.token, q.decision_id, v_now, v_now, v_now + q.seat * interval '1 millisecond',
             q.seat, q.lease, q.realm, q.usr, q.stream, q.device, q.node, q.caller, q.region, q.edge, q.ip, q.agent, q.country, v.shadow,
             v.shadow AND (v.wouldnt IS NOT NULL OR COALESCE(q.would, 'allow') <> 'allow')
        FROM unnest(q_id, q_session, q_key, q_subject, q_token, q_seat, q_lease, q_realm, q_user, q_stream, q_device, q_node,
                    q_caller, q_region, q_edge, q_ip, q_agent, q_country, q_would) WITH ORDINALITY
             AS q(decision_id, session_id, key, subject, token, seat, lease, realm, usr, stream, device, node,
                  caller, region, edge, ip, agent, country, would, ord)
        JOIN unnest(v_round) v ON v.ord = q.ord
       WHERE v.outcome = 'allow' AND NOT v.repeated
       ORDER BY q.key;
    END IF;

    -- Whom enforcement would have ended does not count from now on, where nothing is enforced on him.
    IF true = ANY (q_shadow) THEN
      UPDATE usher.seat t SET beyond = true
        FROM (SELECT unnest(v.would_end) AS id FROM unnest(v_round) v) x
       WHERE t.session_id = x.id AND t.shadow AND NOT t.beyond;
    END IF;

    IF v_goes THEN
      v_went := true;
      UPDATE usher.seat t
         SET rechecks = t.rechecks + 1, last_seen_at = v_now, seat_ms = q_seat[v.ord],
             lease_ms = greatest(t.lease_ms, q_lease[v.ord]), shadow = v.shadow,
             beyond = v.shadow AND (v.wouldnt IS NOT NULL OR COALESCE(q_would[v.ord], 'allow') <> 'allow'), country = COALESCE(q_country[v.ord], t.country),
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
                        NULL, NULL, NULL, NULL, NULL, v.wouldnt, v.would_end, v.shadow)::usher.ledger_ruling
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
             v.ord IS NULL OR NOT v.stored AND (v.outcome = 'deny' OR NOT v.repeated) AS written,
             CASE WHEN v.wouldnt IS NOT NULL AND COALESCE(q.w, 'allow') = 'allow' THEN 'deny'
                  WHEN v.shadow AND q.w IS NULL THEN 'allow' ELSE q.w END AS would,
             CASE WHEN q.w <> 'allow' THEN q.why WHEN v.wouldnt IS NOT NULL THEN v.wouldnt
                  WHEN v.would_end IS NOT NULL THEN 'evict_oldest' ELSE q.why END AS would_reason,
             v.would_end
        FROM unnest(q_open, q_id, q_at, q_trace, q_revision, q_us, q_steps, q_outcome, q_reason, q_region, q_edge, q_node,
                    q_caller, q_stream, q_realm, q_user, q_ip, q_would, q_would_reason, q_would_rule) WITH ORDINALITY
             AS q(opens, id, at, trace, revision, us, steps, said, because, region, edge, node, caller, stream, realm, usr, ip, w, why, would_rule, n)
        LEFT JOIN unnest(v_all) v ON v.ord = q.n
    ), written AS (
      INSERT INTO usher.decision (at, decision_id, session_id, trace_id, policy_revision, duration_us, outcome, reason,
             region, edge, node, caller, stream, realm, user_id, ip, would, would_reason, would_rule)
      SELECT at, id, session_id, trace, revision, us + v_us, outcome, reason, region, edge, node, caller, stream, realm, usr, ip,
             would, would_reason, CASE WHEN would IS NOT NULL THEN would_rule END
        FROM answered
       WHERE written
       ORDER BY id
    ), steps AS (
      INSERT INTO usher.decision_steps (at, decision_id, steps)
      SELECT at, id,
             CASE WHEN opens THEN steps || CASE WHEN steps = '[' THEN '' ELSE ',' END || '{"n":"seat","r":' || to_json(reason)::text
               || COALESCE(',"t":' || to_json(COALESCE(holders, CASE WHEN would_reason IN ('limit', 'evicted') AND opens THEN
                      'tried out: the limit would have refused' WHEN would_end IS NOT NULL THEN
                      'tried out: the limit would have ended ' || array_to_string(would_end, ', ') END))::text, '') || ',"us":' || v_us::text || '}]'
             ELSE steps END
        FROM answered
       WHERE written
    )
    SELECT 0::smallint, q.n::integer - 1, COALESCE(q.decision_id, q.id), q.outcome, q.reason,
           COALESCE(q.stored_realm, q.realm), CASE WHEN q.stored THEN q.stored_user ELSE q.usr END, q.session_id,
           CASE WHEN p_check OR p_rounds > 1 OR v_any THEN
             EXISTS (SELECT 1 FROM usher.seat t WHERE t.session_id = q.session_id)
           ELSE q.session_id IS NOT NULL END, COALESCE(q.repeated, false), CASE WHEN q.written THEN q.would || COALESCE(' ' || q.would_reason, '') END, q.holders,
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
-- The form that programs of the version before call.
CREATE OR REPLACE FUNCTION usher.apply(p_check boolean, p_rounds integer,
  q_open boolean[], q_round integer[], q_id uuid[], q_at timestamptz[], q_region text[], q_edge text[], q_node text[],
  q_caller text[], q_stream text[], q_realm text[], q_user text[], q_ip inet[], q_agent text[], q_revision bigint[],
  q_trace uuid[], q_us bigint[], q_steps text[], q_outcome text[], q_reason text[], q_close uuid[], q_session uuid[],
  q_replaces uuid[], q_key uuid[], q_subject uuid[], q_token uuid[], q_device text[], q_still boolean[], q_keep boolean[],
  q_limit integer[],
  q_mode text[], q_seat bigint[], q_lease bigint[],
  s_session uuid[], s_age bigint[], s_close boolean[], s_reason text[], s_requests bigint[], s_bytes bigint[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
  RETURN QUERY SELECT * FROM usher.apply(p_check, p_rounds, q_open, q_round, q_id, q_at, q_region, q_edge, q_node, q_caller, q_stream, q_realm, q_user, 
    q_ip, q_agent, q_revision, q_trace, q_us, q_steps, q_outcome, q_reason, q_close, q_session, q_replaces, q_key, 
    q_subject, q_token, q_device, q_still, q_keep, q_limit, q_mode, q_seat, q_lease, '{}', '{}', '{}', '{}', '{}', 
    s_session, s_age, s_close, s_reason, s_requests, s_bytes);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION usher.apply(boolean, integer, boolean[], integer[], uuid[], timestamptz[], text[], text[], text[], text[], text[], text[],
  text[], inet[], text[], bigint[], uuid[], bigint[], text[], text[], text[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[],
  boolean[], boolean[], integer[], text[], bigint[], bigint[], text[], text[], text[], text[], boolean[], uuid[], bigint[], boolean[], text[],
  bigint[], bigint[]);
DROP FUNCTION usher.judge(timestamptz, integer, integer[], boolean[], integer[], uuid[], uuid[], uuid[], text[], text[], boolean[],
  boolean[], integer[], text[], uuid[], uuid[], uuid[], text[], boolean[]);
DROP TYPE usher.ledger_ruling;
DROP INDEX usher.decision_would;
DROP VIEW usher.decisions;
CREATE VIEW usher.decisions AS
SELECT d.decision_id, d.at, d.region, d.edge, d.node, d.caller, d.stream, d.realm, d.user_id, d.ip,
       d.outcome, d.would, d.reason, d.policy_revision, d.session_id,
       replace(d.trace_id::text, '-', '') AS trace_id, d.duration_us, d.repeats, s.steps::jsonb AS steps
  FROM usher.decision d
  LEFT JOIN usher.decision_steps s ON s.at = d.at AND s.decision_id = d.decision_id;
GRANT SELECT ON usher.decisions TO usher_reader;
ALTER TABLE usher.decision DROP COLUMN would_rule, DROP COLUMN would_reason;
ALTER TABLE usher.seat DROP COLUMN beyond, DROP COLUMN shadow;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION usher.apply(p_check boolean, p_rounds integer,
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
