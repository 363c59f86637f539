package pgd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	errForeign = errors.New("another server runs in the data directory")
	errExited  = errors.New("PostgreSQL did not start")
)

// startOrAdopt takes over a server that runs in our data directory, else starts one.
func (s *Server) startOrAdopt(ctx context.Context) error {
	p, err := readPostmaster(s.cluster.data())
	if err != nil {
		return err
	}
	if p != nil && p.alive() && p.runs(s.cluster.data()) {
		return s.adopt(ctx, p)
	}
	if p != nil {
		// The server would refuse to start when the pid is in use again by somebody else.
		if err := os.Remove(pidFile(s.cluster.data())); err != nil {
			return fmt.Errorf("removing a stale postmaster.pid: %w", err)
		}
	}
	return s.start(ctx)
}

func (s *Server) adopt(ctx context.Context, p *postmaster) error {
	s.pid, s.adopted = p.pid, true
	if p.port != 0 {
		s.conn.Port = p.port
	}
	go s.poll(p)
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("adopting the running PostgreSQL (process %d): %w", p.pid, err)
	}
	s.log.InfoContext(ctx, "adopted a running PostgreSQL", slog.Int("pid", p.pid), slog.Int("port", s.conn.Port))
	return nil
}

// poll watches a server that is not our child. It ends with the server.
func (s *Server) poll(p *postmaster) {
	for p.alive() && p.runs(s.cluster.data()) {
		time.Sleep(pollEvery)
	}
	close(s.exited)
}

func (s *Server) start(ctx context.Context) error {
	if !portFree(s.conn.Port) {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.log.WarnContext(ctx, "another program took the port of the private PostgreSQL, moving it",
			slog.Int("old_port", s.conn.Port), slog.Int("port", port))
		s.conn.Port = port
		if err := s.conn.save(s.cluster.dir); err != nil {
			return err
		}
	}
	if err := s.cluster.writeSettings(s.conn.Port); err != nil {
		return err
	}
	for {
		err := s.startOnce(ctx)
		if err == nil || !s.leftBehind(err) || ctx.Err() != nil {
			return err
		}
		// Backends of a postmaster that was killed still hold its memory; they notice within a second or two.
		time.Sleep(pollEvery * 4)
		s.exited = make(chan struct{})
	}
}

func (s *Server) startOnce(ctx context.Context) error {
	// The log begins anew, so that lastWords speaks of this start.
	out, err := os.Create(filepath.Join(s.cluster.dir, "start.log"))
	if err != nil {
		return fmt.Errorf("opening the log of PostgreSQL: %w", err)
	}
	cmd := s.cluster.account.command(s.cluster.run(), filepath.Join(s.cluster.programs.Bin, "postgres"), "-D", s.cluster.data())
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		_ = out.Close() // empty
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	s.pid = cmd.Process.Pid
	go s.wait(cmd, out)
	err = s.ready(ctx)
	if err == nil {
		s.log.InfoContext(ctx, "started PostgreSQL", slog.Int("pid", s.pid), slog.Int("port", s.conn.Port),
			slog.Int("major", s.cluster.programs.Major))
		return nil
	}
	if !errors.Is(err, errExited) {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // the first error is the one to tell
		<-s.exited
	}
	return err
}

// ready waits until our password opens this data directory's server.
func (s *Server) ready(ctx context.Context) error {
	for {
		err := s.tryConnect(ctx)
		if err == nil || final(err) {
			return err
		}
		select {
		case <-s.exited:
			return fmt.Errorf("%w: %s", errExited, s.cluster.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for PostgreSQL: %w: %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}

func (s *Server) tryConnect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSNOf("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // only read from
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return err
	}
	if !sameFile(data, s.cluster.data()) {
		return fmt.Errorf("%w: port %d serves %s", errForeign, s.conn.Port, data)
	}
	return nil
}

// final says whether waiting longer cannot help: the server is up and refuses us.
func final(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "28") // invalid authorization
	}
	return errors.Is(err, errForeign)
}

func (s *Server) leftBehind(err error) bool {
	return errors.Is(err, errExited) && strings.Contains(err.Error(), "pre-existing shared memory block")
}

// lastWords is the end of what the server wrote, for an error message.
func (c *cluster) lastWords() string {
	logs, _ := filepath.Glob(filepath.Join(c.data(), "log", "*.log")) // only fails on a bad pattern
	slices.SortFunc(logs, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
	var text []byte
	if raw, err := os.ReadFile(filepath.Join(c.dir, "start.log")); err == nil {
		text = append(text, raw...)
	}
	if len(logs) > 0 {
		if raw, err := os.ReadFile(logs[len(logs)-1]); err == nil {
			text = append(text, raw...)
		}
	}
	return lastLines(text)
}

func modTime(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// sameFile compares what the paths lead to: links may spell one directory in two ways.
func sameFile(a, b string) bool {
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}
