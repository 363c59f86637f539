package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

// closeTimeout bounds what is still flushed after the worker has stopped.
const closeTimeout = 5 * time.Second

// Main runs a worker in a process of its own until ctx ends: it opens what the
// configuration names, runs the worker on it, and closes it again. Neither NATS nor Postgres
// need to be there at the start.
func Main(ctx context.Context, cfg Config, version string) (err error) {
	defer lifecycle.Headroom()()
	tel, err := telemetry.Start(ctx, "worker", version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing(ctx, tel.Stop)) }()
	keyer, err := access.LoadKeyer(cfg.ClusterKey)
	if err != nil {
		return err
	}
	dsn, err := cfg.Postgres.Resolve()
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	store, err := pgstore.Open(ctx, pgstore.Config{DSN: dsn, Application: "usher worker " + cfg.Name}, tel.Log)
	if err != nil {
		return err
	}
	defer store.Close()
	bc, err := cfg.busConfig()
	if err != nil {
		return err
	}
	bc.Tracer, bc.Metrics = tel.Tracer("usher.internal/libs/bus"), tel.Registry
	conn, err := bus.Connect(bc, tel.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing(ctx, conn.Close)) }()
	known, grants, subscribers := store.Known(), store.Grants(), store.Subscribers()
	files := OpenFiles(ctx, cfg.GeoIP, tel)
	ledger := pgstore.NewLedger(store)
	warm(ctx, ledger, tel.Log)
	s, err := New(cfg, Deps{
		Bus: conn, Ledger: ledger, Outbox: store, Sessions: store, Checks: store,
		Directives: store, Claims: store.Claims(), Known: known, Grants: grants, Subscribers: subscribers,
		Keyer: keyer, Telemetry: tel, Files: files,
	})
	if err != nil {
		return err
	}
	return lifecycle.Run(ctx, tel.Log,
		lifecycle.Task{Name: "known", Run: known.Run},
		lifecycle.Task{Name: "grants", Run: grants.Run},
		lifecycle.Task{Name: "files", Run: files.Run},
		lifecycle.Task{Name: "subscribers", Run: subscribers.Run},
		lifecycle.Task{Name: "worker", Run: s.Run})
}

// warmWithin is how long a worker's start waits for Postgres.
const warmWithin = 5 * time.Second

// warm makes the ledger's connections ready. A worker starts without Postgres too.
func warm(ctx context.Context, l *pgstore.Ledger, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, warmWithin)
	defer cancel()
	if err := l.Warm(ctx, 2); err != nil {
		log.WarnContext(ctx, "ledger is not there yet", slog.Any(telemetry.Error, err))
	}
}

// closing gives a last step its own time: ctx has ended when it is taken.
func closing(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return step(ctx)
}
