// Package pgstore is everything of Usher that speaks SQL: the session ledger,
// the recorder's writes, the policy's revisions and the operators' queries.
// All SQL of the project stands here and in schemas/postgres.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.internal/libs/admission"
)

// Config says how to reach Postgres.
type Config struct {
	// DSN is a connection URL or keyword string; it holds a password and is never logged.
	DSN string
	// MaxConns bounds the pool (8).
	MaxConns int
	// Application is shown in pg_stat_activity.
	Application string
}

// Store is a pool of connections to the cluster's database.
type Store struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

// Open prepares a pool. It does not connect: Postgres may be away and come back
// at any time. The error is a DSN that cannot be read; it does not repeat it.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	pc, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		// pgx's text repeats parts of the string.
		return nil, errors.New("the Postgres connection string cannot be read")
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 8
	}
	pc.MaxConns = int32(cfg.MaxConns)
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = 30*time.Minute, 5*time.Minute
	pc.PingTimeout = 2 * time.Second
	pc.ConnConfig.ConnectTimeout = 3 * time.Second
	pc.ConnConfig.RuntimeParams["application_name"] = cfg.Application
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// A demoted primary keeps its connections and refuses writes with 25006, which pgx does not take as fatal
	// (spec nats-and-postgres §6.5).
	pc.ConnConfig.OnPgError = func(_ *pgconn.PgConn, e *pgconn.PgError) bool {
		return !strings.EqualFold(e.Severity, "FATAL") && e.Code != "25006"
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("opening the Postgres pool: %w", err)
	}
	return &Store{pool: pool, log: log}, nil
}

// Close returns every connection.
func (s *Store) Close() { s.pool.Close() }

// Ping asks Postgres for a sign of life.
func (s *Store) Ping(ctx context.Context) error { return unavailable(s.pool.Ping(ctx)) }

// unavailable marks errors of the connection (as opposed to errors of what was asked) with admission.ErrUnavailable.
func unavailable(err error) error {
	if err == nil || errors.Is(err, admission.ErrUnavailable) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !away(pg.Code) {
		return err
	}
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, pgx.ErrTooManyRows) {
		return err
	}
	return fmt.Errorf("%w: %w", admission.ErrUnavailable, err)
}

// away says whether a SQLSTATE means that the server cannot serve now, whatever is asked.
func away(code string) bool {
	switch code[:2] {
	case "08", "53", "57", "58", "XX":
		return true
	}
	return code == "25006" // a read-only, demoted primary
}
