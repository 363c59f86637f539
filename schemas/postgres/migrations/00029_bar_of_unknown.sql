-- +goose Up
-- Replaces two functions: takes no lock that anybody could wait for.

-- A bar of a session's key holds for its own account; where nobody could be asked whose the session is (keep), it holds too: the
-- question names that very session.
-- +goose StatementBegin
-- judge is that of 00004, for limits in shadow too (libs/admission/README.md).
CREATE OR REPLACE FUNCTION usher.judge(p_now timestamptz, p_round integer, p_done integer[], p_open boolean[],
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
                         AND (bar.key <> q.key OR q.keep OR COALESCE(bar.subject, q.subject) = q.subject)
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
-- judge_limits decides one open with a list of limits, as judge does one with a single one: a pure reading of the state that
-- the caller has locked. Each limit counts the seats of its own subject; the first that refuses is the reason, and then nobody
-- makes room for the others. Who makes room is picked for the narrowest limit first, so that one eviction may serve several.
CREATE OR REPLACE FUNCTION usher.judge_limits(p_now timestamptz, p_ord integer, p_key uuid, p_subject uuid, p_token uuid, p_stream text,
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
        AND (bar.key <> p_key OR p_keep OR COALESCE(bar.subject, p_subject) = p_subject)
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

-- +goose Down
-- +goose StatementBegin
-- judge is that of 00004, for limits in shadow too (libs/admission/README.md).
CREATE OR REPLACE FUNCTION usher.judge(p_now timestamptz, p_round integer, p_done integer[], p_open boolean[],
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
                         AND (bar.key <> q.key OR COALESCE(bar.subject, q.subject) = q.subject)
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
-- judge_limits decides one open with a list of limits, as judge does one with a single one: a pure reading of the state that
-- the caller has locked. Each limit counts the seats of its own subject; the first that refuses is the reason, and then nobody
-- makes room for the others. Who makes room is picked for the narrowest limit first, so that one eviction may serve several.
CREATE OR REPLACE FUNCTION usher.judge_limits(p_now timestamptz, p_ord integer, p_key uuid, p_subject uuid, p_token uuid, p_stream text,
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
        AND (bar.key <> p_key OR COALESCE(bar.subject, p_subject) = p_subject)
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
