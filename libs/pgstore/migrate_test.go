package pgstore

import (
	"context"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/libs/testkit"
	schema "usher.internal/schemas/postgres"
)

// Builds of before 00008 had at most 00020; what came later may need 00008.
const (
	shadowMigration = "00008_shadow.sql"
	lastBefore      = 20
)

// later are the migrations after lastBefore.
func later(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(schema.Migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range names {
		own := name[len("migrations/"):]
		if n, err := strconv.Atoi(own[:5]); err != nil || n > lastBefore {
			out = append(out, own)
		}
	}
	return out
}

// unmigrated gives a store on an empty database.
func unmigrated(t *testing.T) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{DSN: testkit.EmptyDSN(t), MaxConns: 10, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// migrations are the store's, without those that are left out.
func migrations(t *testing.T, s *Store, leftOut ...string) *goose.Provider {
	t.Helper()
	names, err := fs.Glob(schema.Migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range names {
		text, err := fs.ReadFile(schema.Migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		if own := name[len("migrations/"):]; !slices.Contains(leftOut, own) {
			files[own] = &fstest.MapFile{Data: text}
		}
	}
	versions, err := database.NewStore(database.DialectPostgres, schema.VersionTable)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(s.pool)
	t.Cleanup(func() { _ = db.Close() })
	p, err := goose.NewProvider("", db, files, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true), goose.WithAllowOutofOrder(true))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sits says that the viewer's seat is taken, by a worker of before 00008 or of after.
func sits(t *testing.T, l interface {
	Apply(context.Context, []admission.Item) ([]admission.Result, error)
}, user string) {
	t.Helper()
	open := admissiontest.Viewer{User: user, Device: "box", Limit: 1, Mode: access.RefuseNew}.Open("a")
	r, err := l.Apply(t.Context(), []admission.Item{open})
	if err != nil || r[0].Err != nil || r[0].Outcome != access.Allow || !r[0].Live {
		t.Fatalf("opening for %s = %+v, %v", user, r, err)
	}
}

// A database with viewers on it, on which a build ran that had 00009 and later and not yet 00008.
func TestShadowsMigrationComesLateAndGoesAgain(t *testing.T) {
	t.Parallel()
	s := unmigrated(t)
	ctx := t.Context()
	if _, err := migrations(t, s, append(later(t), shadowMigration)...).Up(ctx); err != nil {
		t.Fatal(err)
	}
	h := harness{Ledger: NewLedger(s), t: t}
	sits(t, older{h}, "before")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := s.Migrate(ctx); err != nil {
				t.Errorf("Migrate: %v", err)
			}
		})
	}
	wg.Wait()
	sits(t, older{h}, "older")
	sits(t, h, "newer")
	h.exec("SELECT usher.make_partitions(0, 9)")
	p := migrations(t, s)
	if _, err := p.DownTo(ctx, lastBefore); err != nil {
		t.Fatalf("back to %d: %v", lastBefore, err)
	}
	if _, err := p.ApplyVersion(ctx, 8, false); err != nil {
		t.Fatalf("back: %v", err)
	}
	sits(t, older{h}, "after")
	h.exec("SELECT usher.make_partitions(0, 10)")
	if err := s.Migrate(ctx); err != nil {
		t.Fatalf("again: %v", err)
	}
	sits(t, h, "again")
	if seats, rows := len(h.Live()), h.Rows(); seats != 5 || rows != 5 {
		t.Errorf("%d seats and %d rows, want all 5", seats, rows)
	}
	if _, err := migrations(t, s).DownTo(ctx, 0); err != nil {
		t.Errorf("down to nothing: %v", err)
	}
}
