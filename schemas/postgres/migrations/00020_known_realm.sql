-- +goose Up
-- Adds a column with a constant default: ACCESS EXCLUSIVE for a moment, without reading the table.

-- The realm that the check had when it said so: a check that has become another realm's did not mean these users. Empty is
-- what an older worker wrote, which did not say.
ALTER TABLE usher.known ADD COLUMN realm text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE usher.known DROP COLUMN realm;
