-- +goose Up
-- Creates two views and a role: takes no lock that anybody could wait for.

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

CREATE VIEW usher.decisions AS
SELECT d.decision_id, d.at, d.region, d.edge, d.node, d.caller, d.stream, d.realm, d.user_id, d.ip,
       d.outcome, d.would, d.reason, d.policy_revision, d.session_id,
       replace(d.trace_id::text, '-', '') AS trace_id, d.duration_us, d.repeats, s.steps::jsonb AS steps
  FROM usher.decision d
  LEFT JOIN usher.decision_steps s ON s.at = d.at AND s.decision_id = d.decision_id;

-- +goose StatementBegin
DO $$
BEGIN
  CREATE ROLE usher_reader NOLOGIN;
EXCEPTION
  -- The role belongs to the whole server: another database may have made it, also this very moment.
  WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA usher TO usher_reader;
GRANT SELECT ON usher.sessions, usher.decisions TO usher_reader;

-- +goose Down
DROP VIEW usher.decisions;
DROP VIEW usher.sessions;
