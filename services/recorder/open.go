package recorder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

// closeTimeout bounds what is still flushed after the recorder has stopped.
const closeTimeout = 5 * time.Second

// Main runs a recorder in a process of its own until ctx ends: it opens what the
// configuration names, runs the recorder on it, and closes it again. Neither NATS nor
// Postgres need to be there at the start.
func Main(ctx context.Context, cfg Config, version string) (err error) {
	defer lifecycle.Headroom()()
	tel, err := telemetry.Start(ctx, "recorder", version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing(ctx, tel.Stop)) }()
	dsn, err := cfg.Postgres.Resolve()
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	store, err := pgstore.Open(ctx, pgstore.Config{DSN: dsn, Application: "usher recorder " + cfg.Name}, tel.Log)
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
	s, err := New(cfg, Deps{Bus: conn, Store: store, Telemetry: tel})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// closing gives a last step its own time: ctx has ended when it is taken.
func closing(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return step(ctx)
}
