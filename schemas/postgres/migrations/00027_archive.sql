-- +goose Up
-- Adds columns with a constant default: each takes an ACCESS EXCLUSIVE lock on its table for a moment, without rewriting it.

-- How far into the archive a middleware let the viewer go, '' if it did not say (access.Reach as text).
ALTER TABLE usher.middleware_grant ADD COLUMN archive text NOT NULL DEFAULT '' CHECK (octet_length(archive) <= 4096);

-- The same of the operator's own subscribers and of what they have bought.
ALTER TABLE usher.subscriber ADD COLUMN archive text NOT NULL DEFAULT '' CHECK (octet_length(archive) <= 4096);
ALTER TABLE usher.package    ADD COLUMN archive text NOT NULL DEFAULT '' CHECK (octet_length(archive) <= 4096);

-- +goose Down
ALTER TABLE usher.package          DROP COLUMN archive;
ALTER TABLE usher.subscriber       DROP COLUMN archive;
ALTER TABLE usher.middleware_grant DROP COLUMN archive;
