-- +goose Up
-- Adds a column without writing a row and an index on it of no row yet (a moment's lock), a table, types and functions.
-- What it replaces stays, for programs of the version before: their seats count for limits by user over all rules alone.

-- The keys besides subject under which a seat counts; null where no limit of the policy counts by them.
ALTER TABLE usher.seat ADD COLUMN also uuid[];
CREATE INDEX seat_also ON usher.seat USING gin (also) WITH (fastupdate = off) WHERE also IS NOT NULL;

-- How far beyond soft limits subjects are, and since when: the n-th row of a subject is of the n-th seat beyond its limit. Rows
-- are written by whoever holds the subject's lock.
CREATE TABLE usher.soft_excess (
  subject  uuid        NOT NULL,
  id       bigint      GENERATED ALWAYS AS IDENTITY,
  sessions integer     NOT NULL, -- the limit
  at       timestamptz NOT NULL,
  idle_at  timestamptz NOT NULL, -- from then on the oldest that shows no life is closed
  cut_at   timestamptz NOT NULL, -- then the oldest is evicted
  PRIMARY KEY (subject, id)
);

-- A ruling on a question with a list of limits: says is how full each was, full_at and taken are of the one that refused, before
-- is how many seats the subject of each held, null where none is soft.
CREATE TYPE usher.ledger_listed AS (ord integer, ruling usher.ledger_ruling, says text, full_at integer, taken integer, before integer[]);

-- +goose StatementBegin
-- held is how many enforced seats a subject holds.
CREATE FUNCTION usher.held(p_now timestamptz, p_subject uuid) RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT count(*)::integer FROM usher.seat s
   WHERE (s.subject = p_subject OR s.also @> ARRAY[p_subject]) AND NOT s.shadow AND s.expires_at > p_now
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- soft_fall forgets what of a subject's excess has ended by itself: all but the first p_keep.
CREATE FUNCTION usher.soft_fall(p_subject uuid, p_keep integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  DELETE FROM usher.soft_excess
   WHERE subject = p_subject
     AND id IN (SELECT e.id FROM usher.soft_excess e WHERE e.subject = p_subject ORDER BY e.id OFFSET greatest(p_keep, 0));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- settle_soft does what is due of the subjects' soft limits and returns how many sessions it ended: for each excess that has
-- lasted its time the oldest is evicted, for each that has lasted a third of it the oldest that has shown no life for longer than
-- that is closed. The caller holds the locks of the subjects and of their seats.
CREATE FUNCTION usher.settle_soft(p_now timestamptz, p_subjects uuid[]) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_key   uuid;
  v_sess  integer;
  v_due   integer;
  v_ids   uuid[];
  v_ended integer := 0;
  e       record;
BEGIN
  FOREACH v_key IN ARRAY p_subjects LOOP
    CONTINUE WHEN NOT EXISTS (
      SELECT 1 FROM usher.soft_excess x
       WHERE x.subject = v_key
         AND (x.cut_at <= p_now
              OR x.idle_at <= p_now AND EXISTS (
                   SELECT 1 FROM usher.seat s
                    WHERE (s.subject = v_key OR s.also @> ARRAY[v_key]) AND NOT s.shadow AND s.expires_at > p_now
                      AND s.last_seen_at < p_now - (x.cut_at - x.at) * 4 / 9)));
    SELECT max(x.sessions) INTO v_sess FROM usher.soft_excess x WHERE x.subject = v_key;
    PERFORM usher.soft_fall(v_key, usher.held(p_now, v_key) - v_sess);
    WITH due AS (DELETE FROM usher.soft_excess WHERE subject = v_key AND cut_at <= p_now RETURNING 1)
    SELECT count(*) INTO v_due FROM due;
    IF v_due > 0 THEN
      v_ids := ARRAY(SELECT s.session_id FROM usher.seat s
                      WHERE (s.subject = v_key OR s.also @> ARRAY[v_key]) AND NOT s.shadow AND s.expires_at > p_now
                      ORDER BY s.opened_at, s.session_id LIMIT v_due);
      PERFORM usher.end_seats(p_now, array_fill(0, ARRAY[v_due]), v_ids, array_fill('evicted'::text, ARRAY[v_due]), NULL);
      v_ended := v_ended + cardinality(v_ids);
    END IF;
    FOR e IN SELECT (x.cut_at - x.at) * 4 / 9 AS silence FROM usher.soft_excess x
              WHERE x.subject = v_key AND x.idle_at <= p_now ORDER BY x.id LOOP
      v_ids := ARRAY(SELECT s.session_id FROM usher.seat s
                      WHERE (s.subject = v_key OR s.also @> ARRAY[v_key]) AND NOT s.shadow AND s.expires_at > p_now
                        AND s.last_seen_at < p_now - e.silence
                      ORDER BY s.opened_at, s.session_id LIMIT 1);
      CONTINUE WHEN v_ids = '{}';
      PERFORM usher.end_seats(p_now, ARRAY[0], v_ids, ARRAY['idle'], NULL);
      PERFORM usher.soft_fall(v_key, usher.held(p_now, v_key) - v_sess);
      v_ended := v_ended + 1;
    END LOOP;
  END LOOP;
  RETURN v_ended;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- sweep_soft settles up to p_max subjects of whom something is due, and returns how many sessions it ended. Locks come in the
-- order in which the ledger takes them.
CREATE FUNCTION usher.sweep_soft(p_max integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_now  timestamptz := clock_timestamp();
  v_keys uuid[];
BEGIN
  v_keys := ARRAY(
    SELECT DISTINCT e.subject FROM usher.soft_excess e
     WHERE e.cut_at <= v_now
        OR e.idle_at <= v_now AND EXISTS (
             SELECT 1 FROM usher.seat s
              WHERE (s.subject = e.subject OR s.also @> ARRAY[e.subject]) AND s.last_seen_at < v_now - (e.cut_at - e.at) * 4 / 9)
     LIMIT p_max);
  IF v_keys = '{}' THEN
    RETURN 0;
  END IF;
  PERFORM 1 FROM usher.subject WHERE key = ANY (v_keys) ORDER BY key FOR NO KEY UPDATE;
  PERFORM 1 FROM usher.seat
    WHERE session_id = ANY (ARRAY(
            SELECT session_id FROM usher.seat WHERE subject = ANY (v_keys)
            UNION ALL SELECT session_id FROM usher.seat WHERE also && v_keys))
    ORDER BY session_id FOR UPDATE;
  RETURN usher.settle_soft(clock_timestamp(), v_keys);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- note_soft notes how far beyond its soft limits an open that was let in has brought their subjects, which held p_before.
CREATE FUNCTION usher.note_soft(p_now timestamptz, l_subject uuid[], l_sessions integer[], l_mode text[], l_cut bigint[], p_before integer[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  FOR i IN 1 .. cardinality(l_subject) LOOP
    CONTINUE WHEN l_mode[i] <> 'soft';
    PERFORM usher.soft_fall(l_subject[i], p_before[i] - l_sessions[i]);
    UPDATE usher.soft_excess SET sessions = l_sessions[i] WHERE subject = l_subject[i] AND sessions <> l_sessions[i];
    INSERT INTO usher.soft_excess (subject, sessions, at, idle_at, cut_at)
    SELECT l_subject[i], l_sessions[i], p_now, p_now + l_cut[i] * interval '1 millisecond' / 3, p_now + l_cut[i] * interval '1 millisecond'
      FROM generate_series(1, usher.held(p_now, l_subject[i]) - l_sessions[i]
                              - (SELECT count(*)::integer FROM usher.soft_excess e WHERE e.subject = l_subject[i]));
  END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- judge_limits decides one open with a list of limits, as judge does one with a single one: a pure reading of the state that
-- the caller has locked. Each limit counts the seats of its own subject; the first that refuses is the reason, and then nobody
-- makes room for the others. Who makes room is picked for the narrowest limit first, so that one eviction may serve several.
CREATE FUNCTION usher.judge_limits(p_now timestamptz, p_ord integer, p_key uuid, p_subject uuid, p_token uuid, p_stream text,
  p_device text, p_still boolean, p_keep boolean, p_session uuid, p_replaces uuid, p_id uuid, p_reason text, p_shadow boolean,
  l_subject uuid[], l_name text[], l_sessions integer[], l_mode text[])
RETURNS usher.ledger_listed LANGUAGE plpgsql STABLE AS $$
DECLARE
  k         usher.seat; -- that of the question's key
  v_same    boolean;
  v_apart   boolean;
  v_no      text;
  v_zaps    uuid[] := '{}';
  v_stays   uuid[];
  v_holders uuid[];
  v_n       integer;
  v_older   integer;
  v_mode    text;
  v_says    text;
  v_full    integer;
  v_taken   integer;
  v_before  integer[];
  v_who     integer[] := '{}'; -- the limits for which somebody must go, how many, and out of how many
  v_need    integer[] := '{}';
  v_of      integer[] := '{}';
  v_out     uuid[] := '{}';
  v_refused text;
  o         record;
BEGIN
  SELECT * INTO k FROM usher.seat s WHERE s.key = p_key;
  v_same := k.session_id IS NOT NULL AND k.expires_at > p_now AND (k.subject = p_subject OR p_keep) AND k.stream = p_stream
            AND k.device = p_device AND (p_token IS NULL OR p_token IS NOT DISTINCT FROM k.token) AND k.session_id IS DISTINCT FROM p_replaces;
  v_apart := v_same AND CASE WHEN p_shadow THEN k.beyond ELSE k.shadow END;
  IF NOT v_same AND NOT p_still THEN
    SELECT bar.reason INTO v_no FROM usher.bar
      WHERE bar.key IN (p_key, usher.device_bar(p_subject, p_stream, p_device)) AND bar.until > p_now
      ORDER BY bar.until DESC, bar.key = p_key DESC LIMIT 1;
    IF NOT EXISTS (SELECT 1 FROM usher.bar WHERE bar.key = usher.courtesy_bar(p_subject, p_device) AND bar.until > p_now) THEN
      v_zaps := ARRAY(SELECT s.session_id FROM usher.seat s
                       WHERE s.subject = p_subject AND s.device = p_device AND s.stream <> p_stream AND s.shadow = p_shadow
                         AND s.key <> p_key AND s.session_id IS DISTINCT FROM p_replaces AND s.expires_at > p_now);
    END IF;
  END IF;

  IF v_no IS NULL AND NOT (v_same AND p_keep) THEN
    FOR i IN 1 .. cardinality(l_subject) LOOP
      SELECT array_agg(s.session_id ORDER BY s.opened_at, s.session_id), count(*),
             count(*) FILTER (WHERE v_same AND (s.opened_at, s.session_id) < (k.opened_at, k.session_id))
        INTO v_stays, v_n, v_older
        FROM usher.seat s
       WHERE (s.subject = l_subject[i] OR s.also @> ARRAY[l_subject[i]]) AND s.expires_at > p_now
         AND CASE WHEN p_shadow THEN NOT s.beyond ELSE NOT s.shadow END
         AND s.key <> p_key AND s.session_id IS DISTINCT FROM p_replaces AND s.session_id <> ALL (v_zaps);
      -- In the end a soft limit evicts.
      v_mode := CASE WHEN p_shadow AND l_mode[i] = 'soft' THEN 'evict_oldest' ELSE l_mode[i] END;
      v_says := COALESCE(v_says || ', ', '') || v_n || ' of ' || l_sessions[i] || ' seats ' || l_name[i];
      IF v_same AND NOT v_apart AND (k.subject = l_subject[i] OR l_subject[i] = ANY (k.also)) THEN
        IF v_mode = 'refuse' AND v_older >= l_sessions[i] THEN
          v_no := 'limit';
        ELSIF v_mode = 'evict_oldest' AND v_n - v_older >= l_sessions[i] THEN
          v_no := 'evicted';
        END IF;
      -- A seat that did not count so far needs a free one, as if it were opened now.
      ELSIF v_n < l_sessions[i] OR v_mode = 'soft' AND v_n < 2 * l_sessions[i] THEN
        NULL;
      ELSIF v_mode <> 'evict_oldest' THEN
        v_no := 'limit';
      ELSIF v_apart THEN
        v_no := 'evicted';
      ELSIF l_sessions[i] = 0 THEN
        v_no := 'limit';
      ELSE
        v_who := v_who || i;
        v_need := v_need || v_n - l_sessions[i] + 1;
        v_of := v_of || v_n;
      END IF;
      IF v_no IS NOT NULL THEN
        v_full := i - 1;
        v_taken := v_n;
        v_holders := v_stays;
        EXIT;
      END IF;
    END LOOP;
  END IF;

  IF v_no IS NULL THEN
    FOR o IN SELECT * FROM unnest(v_who, v_need, v_of) AS u(i, need, n) ORDER BY u.n, u.i LOOP
      v_stays := ARRAY(SELECT s.session_id FROM usher.seat s
                        WHERE (s.subject = l_subject[o.i] OR s.also @> ARRAY[l_subject[o.i]]) AND s.expires_at > p_now
                          AND CASE WHEN p_shadow THEN NOT s.beyond ELSE NOT s.shadow END
                          AND s.key <> p_key AND s.session_id IS DISTINCT FROM p_replaces AND s.session_id <> ALL (v_zaps)
                        ORDER BY s.opened_at, s.session_id);
      v_out := v_out || ARRAY(
        SELECT u.id FROM unnest(v_stays) WITH ORDINALITY AS u(id, n) WHERE u.id <> ALL (v_out)
         ORDER BY u.n LIMIT greatest(0, o.need - (SELECT count(*) FROM unnest(v_stays) g WHERE g = ANY (v_out))));
    END LOOP;
    IF NOT (v_same AND p_keep) AND 'soft' = ANY (l_mode) THEN
      v_before := ARRAY(SELECT usher.held(p_now, u.s) FROM unnest(l_subject) WITH ORDINALITY AS u(s, n) ORDER BY u.n);
    END IF;
  END IF;

  -- In shadow a full limit refuses nobody, and nobody is ended for it; what it would have done is told.
  v_refused := CASE WHEN p_shadow AND v_no IN ('limit', 'evicted') THEN NULL ELSE v_no END;
  RETURN (p_ord,
    (p_ord, CASE WHEN v_refused IS NULL THEN 'allow' ELSE 'deny' END, COALESCE(v_refused, p_reason),
     CASE WHEN v_refused IS NULL THEN CASE WHEN v_same THEN k.session_id ELSE p_session END END,
     CASE WHEN v_same AND v_refused IS NULL THEN k.decision_id ELSE p_id END,
     v_same AND v_refused IS NULL,
     CASE WHEN v_refused = 'limit' THEN (
       SELECT json_agg(json_build_object('session_id', h.session_id, 'stream', h.stream, 'node', h.node,
                                         'device', h.device, 'opened_at', h.opened_at))::text
         FROM (SELECT * FROM usher.seat h WHERE h.session_id = ANY (v_holders) ORDER BY h.opened_at, h.session_id LIMIT 10) h) END,
     false, NULL, NULL,
     NULLIF(ARRAY(SELECT s.session_id FROM usher.seat s
                   WHERE (s.subject = p_subject OR s.also && l_subject OR s.key = p_key) AND s.expires_at <= p_now), '{}'),
     NULLIF(array_remove(ARRAY[CASE WHEN NOT v_same AND k.expires_at > p_now THEN k.session_id END,
                               NULLIF(p_replaces, k.session_id)], NULL), '{}'),
     CASE WHEN v_refused IS NULL AND NOT v_same THEN NULLIF(v_zaps, '{}') END,
     CASE WHEN v_refused IS NULL AND NOT p_shadow THEN NULLIF(v_out, '{}') WHEN v_same AND v_refused = 'evicted' THEN ARRAY[k.session_id] END,
     CASE WHEN v_same AND v_refused <> 'evicted' THEN ARRAY[k.session_id] END,
     CASE WHEN p_shadow AND v_no IN ('limit', 'evicted') THEN v_no END,
     CASE WHEN p_shadow THEN NULLIF(v_out, '{}') END, p_shadow)::usher.ledger_ruling,
    v_says, CASE WHEN v_refused = 'limit' THEN v_full END, CASE WHEN v_refused = 'limit' THEN v_taken END, v_before)::usher.ledger_listed;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- tick is a sign of life of the ledger. Where nobody gave one for over five seconds, nobody could renew either: every
-- seat lives on by the gap, and a soft limit may be exceeded by it longer; the gap is returned in milliseconds (0 where there was none).
CREATE OR REPLACE FUNCTION usher.tick() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
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
  -- Who showed life before the gap gets time to do so again.
  UPDATE usher.soft_excess SET at = at + (v_now - v_last), cut_at = cut_at + (v_now - v_last),
         idle_at = greatest(idle_at + (v_now - v_last), v_now + (cut_at - at) * 4 / 9);
  RETURN (extract(epoch FROM v_now - v_last) * 1000)::bigint;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- apply is that of 00008, with lists of limits: those of question n stand in l_ from q_limits_at[n] on, q_limits_n[n] of them
-- (null: its limit is q_limit alone, of q_subject), the first to be told first. q_counted are the other keys under which its
-- seat counts, as the text of a uuid[]; p_counted are those of all questions, to be locked. Of a question that a list refused
-- `bar_ms` of the answer says by which of its limits, from 0, and `outbox` how many seats that one's subject held.
CREATE FUNCTION usher.apply(p_check boolean, p_rounds integer,
  q_open boolean[], q_round integer[], q_id uuid[], q_at timestamptz[], q_region text[], q_edge text[], q_node text[],
  q_caller text[], q_stream text[], q_realm text[], q_user text[], q_ip inet[], q_agent text[], q_revision bigint[],
  q_trace uuid[], q_us bigint[], q_steps text[], q_outcome text[], q_reason text[], q_close uuid[], q_session uuid[],
  q_replaces uuid[], q_key uuid[], q_subject uuid[], q_token uuid[], q_device text[], q_still boolean[], q_keep boolean[],
  q_limit integer[],
  q_mode text[], q_seat bigint[], q_lease bigint[], q_would text[], q_would_reason text[],
  q_would_rule text[], q_country text[], q_shadow boolean[],
  q_counted text[], q_limits_at integer[], q_limits_n integer[], p_counted uuid[],
  l_subject uuid[], l_name text[], l_sessions integer[], l_mode text[], l_cut bigint[],
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
  v_plain  boolean[] := q_open;             -- opens without a list
  v_listed usher.ledger_listed[] := '{}';
  v_lists  usher.ledger_listed[];           -- a round's
BEGIN
  -- Before any other lock: after a gap in which nobody could renew, every seat lives on by that gap.
  -- The sweeper ticks each second; where it is away we do, long before that looks like a gap.
  SELECT at INTO v_tick FROM usher.sweeper_tick;
  IF v_tick < v_start - interval '2500 milliseconds' THEN
    PERFORM usher.tick();
  END IF;

  IF p_rounds > 0 THEN
    INSERT INTO usher.subject (key)
    SELECT DISTINCT u FROM unnest(q_subject || p_counted) u WHERE u IS NOT NULL ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM usher.subject WHERE key = ANY (q_subject || p_counted) ORDER BY key FOR NO KEY UPDATE;
  END IF;

  IF p_counted = '{}' THEN
    PERFORM 1 FROM usher.seat
      WHERE session_id = ANY (ARRAY(
              SELECT session_id FROM usher.seat WHERE subject = ANY (q_subject)
              UNION ALL SELECT session_id FROM usher.seat WHERE key = ANY (q_key)
              UNION ALL SELECT unnest(q_replaces || q_close || s_session)))
      ORDER BY session_id FOR UPDATE;
  ELSE
    PERFORM 1 FROM usher.seat
      WHERE session_id = ANY (ARRAY(
              SELECT session_id FROM usher.seat WHERE subject = ANY (q_subject)
              UNION ALL SELECT session_id FROM usher.seat WHERE also && p_counted
              UNION ALL SELECT session_id FROM usher.seat WHERE key = ANY (q_key)
              UNION ALL SELECT unnest(q_replaces || q_close || s_session)))
      ORDER BY session_id FOR UPDATE;
  END IF;
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

  IF l_subject <> '{}' THEN
    v_any := usher.settle_soft(v_now, ARRAY(SELECT DISTINCT s FROM unnest(l_subject, l_mode) AS u(s, mode) WHERE mode = 'soft' ORDER BY 1)) > 0 OR v_any;
    v_plain := ARRAY(SELECT u.opens AND u.at IS NULL FROM unnest(q_open, q_limits_at) WITH ORDINALITY AS u(opens, at, ord) ORDER BY u.ord);
  END IF;

  FOR r IN 1 .. p_rounds LOOP
    SELECT array_agg(j), bool_or(j.outcome = 'allow' AND NOT j.repeated), bool_or(j.repeated),
           bool_or(COALESCE(j.expired, j.reused, j.zapped, j.evicted, j.denied) IS NOT NULL)
      INTO v_round, v_opens, v_goes, v_ending
      FROM usher.judge(v_now, r, v_done, v_plain, q_round, q_key, q_subject, q_token, q_stream, q_device,
                       q_still, q_keep, q_limit, q_mode, q_session, q_replaces, q_id, q_reason, q_shadow) j;
    IF l_subject <> '{}' THEN
      v_lists := ARRAY(
        SELECT usher.judge_limits(v_now, u.ord::integer, q_key[u.ord], q_subject[u.ord], q_token[u.ord], q_stream[u.ord], q_device[u.ord],
                 q_still[u.ord], q_keep[u.ord], q_session[u.ord], q_replaces[u.ord], q_id[u.ord], q_reason[u.ord],
                 COALESCE(q_shadow[u.ord], false), l_subject[u.at : u.at + u.n - 1], l_name[u.at : u.at + u.n - 1],
                 l_sessions[u.at : u.at + u.n - 1], l_mode[u.at : u.at + u.n - 1])
          FROM unnest(q_open, q_round, q_limits_at, q_limits_n) WITH ORDINALITY AS u(opens, round, at, n, ord)
         WHERE u.opens AND u.round = r AND u.at IS NOT NULL AND (v_done IS NULL OR u.ord <> ALL (v_done)));
      IF v_lists <> '{}' THEN
        v_listed := v_listed || v_lists;
        SELECT COALESCE(v_round, '{}') || array_agg((u).ruling),
               COALESCE(v_opens, false) OR bool_or(((u).ruling).outcome = 'allow' AND NOT ((u).ruling).repeated),
               COALESCE(v_goes, false) OR bool_or(((u).ruling).repeated),
               COALESCE(v_ending, false) OR bool_or(COALESCE(((u).ruling).expired, ((u).ruling).reused, ((u).ruling).zapped,
                                                             ((u).ruling).evicted, ((u).ruling).denied) IS NOT NULL)
          INTO v_round, v_opens, v_goes, v_ending
          FROM (SELECT m AS u FROM unnest(v_lists) m) x;
      END IF;
    END IF;
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
             realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country, also, shadow, beyond)
      SELECT q.session_id, q.key, q.subject, q.token, q.decision_id, v_now, v_now, v_now + q.seat * interval '1 millisecond',
             q.seat, q.lease, q.realm, q.usr, q.stream, q.device, q.node, q.caller, q.region, q.edge, q.ip, q.agent, q.country, q.counted::uuid[], v.shadow,
             v.shadow AND (v.wouldnt IS NOT NULL OR COALESCE(q.would, 'allow') <> 'allow')
        FROM unnest(q_id, q_session, q_key, q_subject, q_token, q_seat, q_lease, q_realm, q_user, q_stream, q_device, q_node,
                    q_caller, q_region, q_edge, q_ip, q_agent, q_country, q_would, q_counted) WITH ORDINALITY
             AS q(decision_id, session_id, key, subject, token, seat, lease, realm, usr, stream, device, node,
                  caller, region, edge, ip, agent, country, would, counted, ord)
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
             also = CASE WHEN q_keep[v.ord] THEN t.also ELSE q_counted[v.ord]::uuid[] END,
             expires_at = greatest(t.expires_at, v_now + q_seat[v.ord] * interval '1 millisecond')
        FROM unnest(v_round) v
       WHERE v.repeated AND t.session_id = v.session_id;
    END IF;
    IF v_lists <> '{}' THEN
      PERFORM usher.note_soft(v_now, l_subject[q_limits_at[(u).ord] : q_limits_at[(u).ord] + q_limits_n[(u).ord] - 1],
                              l_sessions[q_limits_at[(u).ord] : q_limits_at[(u).ord] + q_limits_n[(u).ord] - 1],
                              l_mode[q_limits_at[(u).ord] : q_limits_at[(u).ord] + q_limits_n[(u).ord] - 1],
                              l_cut[q_limits_at[(u).ord] : q_limits_at[(u).ord] + q_limits_n[(u).ord] - 1], (u).before)
        FROM (SELECT m AS u FROM unnest(v_lists) m) x
       WHERE ((u).ruling).outcome = 'allow' AND NOT ((u).ruling).shadow AND (u).before IS NOT NULL;
    END IF;
    IF true = ANY (q_still) THEN
      INSERT INTO usher.bar (key, until, reason)
      SELECT DISTINCT usher.courtesy_bar(q_subject[v.ord], q_device[v.ord]), v_now + interval '1 hour', 'courtesy'
        FROM unnest(v_round) v WHERE q_still[v.ord] ORDER BY 1
      ON CONFLICT (key) DO UPDATE SET until = EXCLUDED.until;
    END IF;
  END LOOP;

  -- An open whose seat a later round took was never let in; only a zapped one is tolerated for a while.
  IF p_rounds > 1 OR v_went AND v_any THEN
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
             v.would_end, m.says, m.full_at, m.taken
        FROM unnest(q_open, q_id, q_at, q_trace, q_revision, q_us, q_steps, q_outcome, q_reason, q_region, q_edge, q_node,
                    q_caller, q_stream, q_realm, q_user, q_ip, q_would, q_would_reason, q_would_rule) WITH ORDINALITY
             AS q(opens, id, at, trace, revision, us, steps, said, because, region, edge, node, caller, stream, realm, usr, ip, w, why, would_rule, n)
        LEFT JOIN unnest(v_all) v ON v.ord = q.n
        LEFT JOIN unnest(v_listed) m ON m.ord = q.n
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
               || COALESCE(',"t":' || to_json(COALESCE(says || COALESCE(': ' || holders, ''), holders, CASE WHEN would_reason IN ('limit', 'evicted') AND opens THEN
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
           q.taken::bigint, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::text, q.full_at::bigint, NULL::boolean, v_now
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
  q_mode text[], q_seat bigint[], q_lease bigint[], q_would text[], q_would_reason text[],
  q_would_rule text[], q_country text[], q_shadow boolean[],
  s_session uuid[], s_age bigint[], s_close boolean[], s_reason text[], s_requests bigint[], s_bytes bigint[])
RETURNS SETOF usher.ledger_answer LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
  RETURN QUERY SELECT * FROM usher.apply(p_check, p_rounds, q_open, q_round, q_id, q_at, q_region, q_edge, q_node, q_caller, q_stream, q_realm, q_user, q_ip,
    q_agent, q_revision, q_trace, q_us, q_steps, q_outcome, q_reason, q_close, q_session, q_replaces, q_key, q_subject, q_token, q_device,
    q_still, q_keep, q_limit, q_mode, q_seat, q_lease, q_would, q_would_reason, q_would_rule, q_country, q_shadow, '{}', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}', '{}', s_session, s_age, s_close, s_reason, s_requests, s_bytes);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION usher.apply(boolean, integer, boolean[], integer[], uuid[], timestamptz[], text[], text[], text[], text[], text[], text[], text[], inet[], text[], bigint[], uuid[], bigint[], text[], text[], text[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], boolean[], boolean[], integer[], text[], bigint[], bigint[], text[], text[], text[], text[], boolean[], text[], integer[], integer[], uuid[], uuid[], text[], integer[], text[], bigint[], uuid[], bigint[], boolean[], text[], bigint[], bigint[]);
DROP FUNCTION usher.judge_limits(timestamptz, integer, uuid, uuid, uuid, text, text, boolean, boolean, uuid, uuid, uuid, text, boolean,
  uuid[], text[], integer[], text[]);
DROP FUNCTION usher.note_soft(timestamptz, uuid[], integer[], text[], bigint[], integer[]);
DROP FUNCTION usher.sweep_soft(integer);
DROP FUNCTION usher.settle_soft(timestamptz, uuid[]);
DROP FUNCTION usher.soft_fall(uuid, integer);
DROP FUNCTION usher.held(timestamptz, uuid);
DROP TYPE usher.ledger_listed;
-- +goose StatementBegin
-- tick is a sign of life of the ledger. Where nobody gave one for over five seconds, nobody could renew either: every
-- seat lives on by the gap, which is returned in milliseconds (0 where there was none).
CREATE OR REPLACE FUNCTION usher.tick() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
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
DROP TABLE usher.soft_excess;
DROP INDEX usher.seat_also;

-- +goose StatementBegin
-- apply is that of 00004, with five more of each question: what the policy would have said, why and by which rule, the viewer's country,
-- and whether its limit is in shadow. Of a question in shadow `closed` of the answer is what would have been.
CREATE OR REPLACE FUNCTION usher.apply(p_check boolean, p_rounds integer,
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

ALTER TABLE usher.seat DROP COLUMN also;
