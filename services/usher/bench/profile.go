package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"

	"usher.internal/libs/pgd"
)

// startPostgres starts the private server with fsync. For profiles it also counts what each
// statement costs, those inside functions too, which slows it down a little.
func (l *lab) startPostgres(ctx context.Context) (err error) {
	o := pgd.Options{Dir: filepath.Join(l.dir, "postgres"), Log: slog.New(slog.DiscardHandler)}
	if l.postgres, err = pgd.Start(ctx, o); err != nil || l.profile == "" {
		return err
	}
	if _, err := l.sql(ctx, "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'"); err != nil {
		return err
	}
	if err := l.postgres.Stop(ctx); err != nil {
		return err
	}
	if l.postgres, err = pgd.Start(ctx, o); err != nil {
		return err
	}
	_, err = l.sql(ctx, "CREATE EXTENSION pg_stat_statements",
		"ALTER SYSTEM SET pg_stat_statements.track = 'all'", "SELECT pg_reload_conf()")
	return err
}

// profiles begins the profiles of a path: of the load, of each SQL statement. The cluster's
// own process writes its own. end writes them.
func (l *lab) profiles(ctx context.Context, p path) (end func() error, err error) {
	if l.profile == "" {
		return func() error { return nil }, nil
	}
	if _, err := l.sql(ctx, "SELECT pg_stat_statements_reset()"); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(l.profile, p.name+".load.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		text, err := l.sql(ctx, `
			SELECT format('%9s ms %9s calls %8s us/call %8s rows  %s', total_exec_time::bigint, calls,
			              (1000 * mean_exec_time)::bigint, rows, left(regexp_replace(query, '\s+', ' ', 'g'), 140))
			  FROM pg_stat_statements
			 ORDER BY total_exec_time DESC
			 LIMIT 40`)
		return errors.Join(f.Close(), err, os.WriteFile(filepath.Join(l.profile, p.name+".sql.txt"), fmt.Appendln(nil, text), 0o644))
	}, nil
}
