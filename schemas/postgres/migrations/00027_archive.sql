-- +goose Up
-- Adds a column with a constant default: it takes an ACCESS EXCLUSIVE lock on the table for a moment, without rewriting it.

-- How far into the archive a middleware let the viewer go, '' if it did not say (access.Reach as text).
ALTER TABLE usher.middleware_grant ADD COLUMN archive text NOT NULL DEFAULT '' CHECK (octet_length(archive) <= 4096);

-- +goose Down
ALTER TABLE usher.middleware_grant DROP COLUMN archive;
