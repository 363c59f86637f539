// Package postgres holds the database schema: numbered migrations, embedded so
// that every binary that migrates carries them. A migration that has landed is
// never edited; each says which locks it takes (CONTRIBUTING.md).
package postgres

import "embed"

// Migrations are goose migrations in the folder "migrations".
//
//go:embed migrations/*.sql
var Migrations embed.FS

// VersionTable is where goose keeps what has been applied. It names its schema: for a role called
// usher the search path begins with the schema usher, once the first migration has made that.
const VersionTable = "public.usher_schema_version"
