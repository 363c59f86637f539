-- +goose Up
-- Creates a table: takes no lock that anybody could wait for.

-- What middlewares allowed, for as long as it holds: a Ministra's token is good for five seconds, the yes that it was good
-- for ten hours. No foreign text but names: tokens and queries are keyed fingerprints.
CREATE TABLE usher.middleware_grant (
  who           uuid        NOT NULL,
  ip            inet        NOT NULL,
  stream        text        NOT NULL CHECK (octet_length(stream) <= 2048),
  check_name    text        NOT NULL,
  realm         text        NOT NULL,
  user_id       text        NOT NULL CHECK (octet_length(user_id) <= 2048),
  session_name  text        NOT NULL,
  sessions      integer     NOT NULL,
  whole_session boolean     NOT NULL,
  granted_at    timestamptz NOT NULL,
  expires_at    timestamptz NOT NULL,
  recheck_at    timestamptz,
  PRIMARY KEY (who, stream, ip, check_name)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX middleware_grant_user ON usher.middleware_grant (realm, user_id) WHERE user_id <> '';

-- +goose Down
DROP TABLE usher.middleware_grant;
