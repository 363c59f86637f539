-- +goose Up
-- Creates a table: takes no lock that anybody could wait for.

-- Revisions that go back by themselves unless somebody confirms them (usher policy apply --confirm). A trial is open while
-- neither happened and its revision is the newest; a newer revision ends it, since somebody decided otherwise.
CREATE TABLE usher.policy_trial (
  revision     bigint      NOT NULL PRIMARY KEY,
  back_to      bigint      NOT NULL,
  due          timestamptz NOT NULL,
  confirmed_at timestamptz,
  confirmed_by text,
  went_back    bigint, -- the revision that brought back_to's policy in force again
  CHECK (back_to < revision),
  CHECK ((confirmed_at IS NULL) = (confirmed_by IS NULL)),
  CHECK (confirmed_at IS NULL OR went_back IS NULL)
);
CREATE INDEX policy_trial_open ON usher.policy_trial (due) WHERE confirmed_at IS NULL AND went_back IS NULL;
