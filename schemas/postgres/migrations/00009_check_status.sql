-- +goose Up
-- Creates a table: takes no lock that anybody could wait for.

-- How the checks of the policy do, as each worker sees it: written on a change and every few seconds.
CREATE TABLE usher.check_status (
  worker      text        NOT NULL,
  check_name  text        NOT NULL,
  type        text        NOT NULL,
  state       text        NOT NULL,
  since       timestamptz NOT NULL,
  last_ok     timestamptz,
  last_error  text        NOT NULL,
  asked       bigint      NOT NULL,
  yes         bigint      NOT NULL,
  no          bigint      NOT NULL,
  unavailable bigint      NOT NULL,
  p50_ms      double precision NOT NULL,
  p99_ms      double precision NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (worker, check_name)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE usher.check_status;
