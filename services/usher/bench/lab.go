package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgd"
)

// lab is what all paths share: a directory, Postgres and the yardsticks' process.
type lab struct {
	options
	dir       string
	out       io.Writer
	postgres  *pgd.Server
	psql      string
	keyer     *access.Keyer
	yardstick *child
}

// openLab starts Postgres with fsync and the yardsticks.
func openLab(ctx context.Context, o options, out io.Writer) (*lab, error) {
	l := &lab{options: o, out: out}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) open(ctx context.Context) (err error) {
	if l.keyer, err = newKeyer(); err != nil {
		return err
	}
	// The children inherit it; the policy refers to it.
	if err := os.Setenv("BENCH_SECRET", secret); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp("", "usher-bench-"); err != nil {
		return err
	}
	// As root the server runs as another user, who must pass.
	if err := os.Chmod(l.dir, 0o711); err != nil {
		return err
	}
	if l.profile != "" {
		if err := os.MkdirAll(l.profile, 0o755); err != nil {
			return err
		}
	}
	programs, err := pgd.FindPrograms(0)
	if err != nil {
		return err
	}
	l.psql = filepath.Join(programs.Bin, "psql")
	if err := l.startPostgres(ctx); err != nil {
		return err
	}
	l.yardstick, err = l.spawn(ctx, "yardstick", "")
	return err
}

func (l *lab) close() error {
	var errs []error
	if l.yardstick != nil {
		errs = append(errs, l.yardstick.stop())
	}
	if l.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		errs = append(errs, l.postgres.Stop(ctx))
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// sql runs statements with psql, each in a transaction of its own, and returns what they print.
func (l *lab) sql(ctx context.Context, statements ...string) (string, error) {
	u, err := url.Parse(l.postgres.DSN())
	if err != nil {
		return "", errors.New("the connection string of the private server cannot be read")
	}
	password, _ := u.User.Password()
	args := []string{"-qAtX", "-v", "ON_ERROR_STOP=1"}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	cmd := exec.CommandContext(ctx, l.psql, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+u.User.Username(),
		"PGPASSWORD="+password, "PGDATABASE="+strings.TrimPrefix(u.Path, "/"))
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

// fill empties the state of earlier paths and lays 50,000 live sessions of users that nobody
// asks about, so that plans and sizes are those of a running system.
func (l *lab) fill(ctx context.Context) error {
	_, err := l.sql(ctx,
		`TRUNCATE usher.seat, usher.subject, usher.decision, usher.decision_steps, usher.session_history,
		          usher.bar, usher.outbox, usher.claim, usher.known, usher.soft_excess`,
		`INSERT INTO usher.seat (session_id, key, subject, decision_id, opened_at, last_seen_at, expires_at, seat_ms, lease_ms,
		        realm, user_id, stream, device, node, caller, region, edge, ip, user_agent)
		 SELECT gen_random_uuid(), gen_random_uuid(), md5('b' || i / 2)::uuid, gen_random_uuid(), now(), now(), now() + interval '1 day',
		        86400000, 180000, 'main', 'b' || i / 2, 'channel-' || i % 200, 'box ' || i, 'web1', 'nginx', 'main', 'edge1',
		        '192.0.2.7', 'Mozilla/5.0 (Linux; Android 11; SmartTV) AppleWebKit/537.36'
		   FROM generate_series(1, 50000) i`,
		`INSERT INTO usher.subject SELECT DISTINCT subject FROM usher.seat ON CONFLICT DO NOTHING`,
		`VACUUM ANALYZE usher.seat`)
	return err
}

// servers are the processes whose time a path on a cluster takes.
func (l *lab) servers(server *child) []watched {
	all := []watched{{name: "load", pid: os.Getpid()}, {name: "postgres", pid: l.postgres.PID(), tree: true}}
	if server != nil {
		all = append(all, watched{name: "server", pid: server.pid()})
	}
	return all
}

// syncTime is how long one small write with fsync takes on the disk of the run.
func (l *lab) syncTime() time.Duration {
	f, err := os.Create(filepath.Join(l.dir, "sync"))
	if err != nil {
		return 0
	}
	defer f.Close()
	times := make([]time.Duration, 50)
	for i := range times {
		begin := time.Now()
		if _, err := f.WriteAt(make([]byte, 8192), 0); err != nil || f.Sync() != nil {
			return 0
		}
		times[i] = time.Since(begin)
	}
	slices.Sort(times)
	return times[len(times)/2].Round(time.Microsecond)
}
