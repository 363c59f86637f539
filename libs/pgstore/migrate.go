package pgstore

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	schema "usher.internal/schemas/postgres"
)

// Migrate brings the schema up to this program's version; several may do so at once.
func (s *Store) Migrate(ctx context.Context) error {
	files, err := fs.Sub(schema.Migrations, "migrations")
	if err != nil {
		return fmt.Errorf("reading embedded migrations: %w", err)
	}
	versions, err := database.NewStore(database.DialectPostgres, schema.VersionTable)
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("preparing the migration lock: %w", err)
	}
	db := stdlib.OpenDBFromPool(s.pool)
	defer func() { _ = db.Close() }() // returns its connections to the pool, nothing to lose
	p, err := goose.NewProvider("", db, files, goose.WithStore(versions), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true),
		// Each adds something of its own, so that one that landed after a later number may follow it.
		goose.WithAllowOutofOrder(true))
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	return nil
}
