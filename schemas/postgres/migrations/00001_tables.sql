-- +goose Up
-- Creates everything new: takes no lock that anybody could wait for.

CREATE SCHEMA usher;

-- Live seats. No index on the columns that renewals move (last_seen_at, expires_at), so that
-- renewals stay heap-only: a sweep of this small table finds what has expired.
CREATE TABLE usher.seat (
  session_id   uuid        NOT NULL PRIMARY KEY,
  key          uuid        NOT NULL,
  subject      uuid        NOT NULL,
  token        uuid,
  decision_id  uuid        NOT NULL,
  opened_at    timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  seat_ms      bigint      NOT NULL CHECK (seat_ms > 0),
  lease_ms     bigint      NOT NULL CHECK (lease_ms >= 0),
  requests     bigint      NOT NULL DEFAULT 0,
  bytes        bigint      NOT NULL DEFAULT 0,
  rechecks     integer     NOT NULL DEFAULT 0,
  realm        text        NOT NULL,
  user_id      text,
  stream       text        NOT NULL,
  device       text        NOT NULL,
  node         text        NOT NULL,
  caller       text        NOT NULL,
  region       text        NOT NULL,
  edge         text        NOT NULL,
  ip           inet,
  user_agent   text        NOT NULL CHECK (octet_length(user_agent) <= 2048),
  country      text,
  CHECK (octet_length(stream) <= 2048 AND octet_length(user_id) <= 2048 AND octet_length(device) <= 2048)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX seat_key ON usher.seat (key);
CREATE INDEX seat_subject ON usher.seat (subject);

-- One row a subject, locked by whoever counts its seats.
CREATE TABLE usher.subject (key uuid NOT NULL PRIMARY KEY);

-- What was closed. A day a partition, by the time of closing.
CREATE TABLE usher.session_history (
  closed_at    timestamptz NOT NULL,
  session_id   uuid        NOT NULL,
  decision_id  uuid        NOT NULL,
  opened_at    timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  close_reason text        NOT NULL,
  requests     bigint      NOT NULL,
  bytes        bigint      NOT NULL,
  rechecks     integer     NOT NULL,
  realm        text        NOT NULL,
  user_id      text,
  stream       text        NOT NULL,
  device       text        NOT NULL,
  node         text        NOT NULL,
  caller       text        NOT NULL,
  region       text        NOT NULL,
  edge         text        NOT NULL,
  ip           inet,
  user_agent   text        NOT NULL,
  country      text,
  PRIMARY KEY (closed_at, session_id)
) PARTITION BY RANGE (closed_at);
CREATE INDEX session_history_session ON usher.session_history (session_id);
CREATE INDEX session_history_user ON usher.session_history (user_id, opened_at);

-- One row a question, for ever the same id. A day a partition, by the id's own time.
CREATE TABLE usher.decision (
  at              timestamptz NOT NULL,
  decision_id     uuid        NOT NULL,
  session_id      uuid,
  trace_id        uuid,
  policy_revision bigint      NOT NULL,
  duration_us     bigint      NOT NULL,
  repeats         bigint      NOT NULL DEFAULT 0,
  by_edge         boolean     NOT NULL DEFAULT false,
  outcome         text        NOT NULL CHECK (outcome IN ('allow', 'deny', 'redirect')),
  would           text,
  reason          text        NOT NULL,
  region          text        NOT NULL,
  edge            text        NOT NULL,
  node            text        NOT NULL,
  caller          text        NOT NULL,
  stream          text        NOT NULL,
  realm           text        NOT NULL,
  user_id         text,
  ip              inet,
  CHECK (octet_length(stream) <= 2048 AND octet_length(user_id) <= 2048 AND octet_length(node) <= 2048),
  PRIMARY KEY (at, decision_id)
) PARTITION BY RANGE (at);
CREATE INDEX decision_user ON usher.decision (user_id, at) WHERE user_id IS NOT NULL;

-- The steps of a decision are wide and kept for days only: a table of their own,
-- dropped by partitions, found through its time (BRIN costs inserts next to nothing).
CREATE TABLE usher.decision_steps (
  at          timestamptz NOT NULL,
  decision_id uuid        NOT NULL,
  steps       text        NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX decision_steps_at ON usher.decision_steps USING brin (at) WITH (pages_per_range = 8, autosummarize = on);

-- Who may not open again yet, or has lost a courtesy. Rows are few and swept.
CREATE TABLE usher.bar (
  key    uuid        NOT NULL PRIMARY KEY,
  until  timestamptz NOT NULL,
  reason text        NOT NULL
);

-- What the edges must hear. Deleted once published; what is left is published by any recorder.
CREATE TABLE usher.outbox (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  session_id uuid        NOT NULL,
  key        uuid        NOT NULL,
  subject    uuid        NOT NULL,
  realm      text        NOT NULL,
  user_id    text,
  stream     text        NOT NULL,
  device     text        NOT NULL,
  node       text        NOT NULL,
  reason     text        NOT NULL,
  bar_ms     bigint      NOT NULL,
  bar_device boolean     NOT NULL
);

CREATE TABLE usher.policy_revision (
  revision   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source     text        NOT NULL,
  author     text        NOT NULL,
  comment    text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- How far the journal has been recorded: written in the transaction of the rows.
CREATE TABLE usher.journal_position (
  stream      text        NOT NULL PRIMARY KEY,
  incarnation timestamptz NOT NULL,
  seq         bigint      NOT NULL
);

-- A sweeper's sign of life each second: the gap after an outage is added to every seat.
CREATE TABLE usher.sweeper_tick (
  one boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
  at  timestamptz NOT NULL
);
INSERT INTO usher.sweeper_tick (at) VALUES (clock_timestamp());

-- A middleware's last word on a viewer, for the fail mode grace.
CREATE TABLE usher.known (
  check_name   text        NOT NULL,
  who          uuid        NOT NULL,
  allowed      boolean     NOT NULL,
  user_id      text        NOT NULL,
  session_name text        NOT NULL,
  sessions     integer     NOT NULL,
  at           timestamptz NOT NULL,
  PRIMARY KEY (check_name, who)
);

-- The first value seen with the part of a token that a viewer cannot rewrite.
CREATE TABLE usher.claim (
  name  uuid        NOT NULL PRIMARY KEY,
  value text        NOT NULL,
  at    timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP SCHEMA usher CASCADE;
