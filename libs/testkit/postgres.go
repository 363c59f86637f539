package testkit

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver that goose needs
	"github.com/pressly/goose/v3"

	"usher.internal/libs/pgd"
	"usher.internal/schemas/postgres"
)

const (
	template     = "usher_template"
	startWithin  = 2 * time.Minute
	createWithin = time.Minute
)

// DSN gives the test a database of its own on a real PostgreSQL: a copy of a migrated
// template, dropped when the test ends. The server is private to the test binary,
// started by the first call, and ends with the process however that ends.
func DSN(t testing.TB) string {
	t.Helper()
	return database(t, template)
}

// EmptyDSN is DSN without the schema: for tests of the migrations themselves.
func EmptyDSN(t testing.TB) string {
	t.Helper()
	return database(t, "template1")
}

// cluster is the one server of this process.
type cluster struct {
	*pgd.Server
	// leash is held here for as long as the process lives: the garbage collector closes
	// files that nothing refers to.
	leash *leash
}

var (
	sharedCluster = sync.OnceValues(startCluster)
	databases     atomic.Int64
)

func database(t testing.TB, from string) string {
	t.Helper()
	server, err := sharedCluster()
	if err != nil {
		t.Fatalf("starting PostgreSQL for tests: %v", err)
	}
	name := fmt.Sprintf("test_%d", databases.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	if err := admin(ctx, server, "CREATE DATABASE "+name+" TEMPLATE "+from); err != nil {
		t.Fatalf("making a database for the test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), createWithin)
		defer cancel()
		if err := admin(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return server.DSNOf(name)
}

func admin(ctx context.Context, server *cluster, statement string) error {
	conn, err := pgx.Connect(ctx, server.DSNOf("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // the statement was answered
	_, err = conn.Exec(ctx, statement)
	return err
}

func startCluster() (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	dir, leash, err := makeDir()
	if err != nil {
		return nil, err
	}
	c := &cluster{leash: leash}
	c.Server, err = pgd.Start(ctx, pgd.Options{Dir: dir, Unsafe: true, MaxConnections: 300})
	if err != nil {
		return nil, err
	}
	if err := admin(ctx, c, "CREATE DATABASE "+template); err != nil {
		return nil, err
	}
	return c, migrate(ctx, c.DSNOf(template))
}

func migrate(ctx context.Context, dsn string) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	// A template can only be copied while nobody is connected to it.
	defer func() { _ = db.Close() }()
	dir, err := fs.Sub(postgres.Migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithTableName(postgres.VersionTable))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}
