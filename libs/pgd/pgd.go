package pgd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrStopped is what Failed delivers when the server went down without Stop.
var ErrStopped = errors.New("the private PostgreSQL stopped")

const (
	pollEvery = 50 * time.Millisecond
	// startTimeout is long because a server that was killed replays its log first.
	startTimeout = 5 * time.Minute
)

// Options of a private server.
type Options struct {
	// Dir holds everything; made if missing. The caller keeps other processes out of
	// it (a lock of its own): a second Start would adopt the first one's server.
	Dir string
	// MaxConnections of the server, 100 if 0.
	MaxConnections int
	// Unsafe turns fsync off. For tests only: a power cut destroys the cluster.
	Unsafe bool
	// Log gets life-cycle lines; nil discards them.
	Log *slog.Logger
}

// Server is a running private PostgreSQL. Its methods may be called from any goroutine.
type Server struct {
	cluster *cluster
	conn    connection
	log     *slog.Logger
	pid     int
	adopted bool
	failed  chan error
	exited  chan struct{} // closed when the postmaster is gone
	waitErr error         // of the child; read after exited

	stop     sync.Once
	stopping chan struct{}
	stopErr  error
}

// Start makes the cluster if there is none, starts its server or adopts the one that runs,
// makes the database, and returns when it accepts connections. ctx bounds the start
// only. Errors wrap ErrNoPrograms, ErrNotReachable or say what the server said.
func Start(ctx context.Context, o Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, conn, err := open(o)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cluster: c, conn: conn, log: o.Log,
		failed: make(chan error, 1), exited: make(chan struct{}), stopping: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.startOrAdopt(ctx); err != nil {
		return nil, err
	}
	if err := s.makeDatabase(ctx); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	go s.watch()
	return s, nil
}

// open finds or makes everything that stands on disk.
func open(o Options) (*cluster, connection, error) {
	var none connection
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, none, fmt.Errorf("directory of PostgreSQL: %w", err)
	}
	major, err := clusterMajor(dir)
	if err != nil {
		return nil, none, err
	}
	programs, err := FindPrograms(major)
	if err != nil {
		return nil, none, err
	}
	acc, err := serverAccount(filepath.Join(dir, "data"))
	if err != nil {
		return nil, none, err
	}
	c := &cluster{dir: dir, programs: programs, account: acc, unsafe: o.Unsafe, maxConns: o.MaxConnections}
	if c.maxConns == 0 {
		c.maxConns = defaultMaxConns
	}
	if err := c.prepare(); err != nil {
		return nil, none, err
	}
	conn, err := loadOrMake(dir, major != 0)
	if err != nil {
		return nil, none, err
	}
	if major == 0 {
		if err := c.initdb(conn.Password); err != nil {
			return nil, none, err
		}
	}
	return c, conn, nil
}

// DSN is the connection string of the database "usher". It holds the password.
func (s *Server) DSN() string { return s.conn.dsn(database) }

// DSNOf is the connection string of another database of the cluster.
func (s *Server) DSNOf(db string) string { return s.conn.dsn(db) }

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.pid }

// Adopted says whether the server was running already, left by a killed process.
func (s *Server) Adopted() bool { return s.adopted }

// Failed delivers ErrStopped, wrapped, when the server goes down by itself.
func (s *Server) Failed() <-chan error { return s.failed }

func (s *Server) watch() {
	<-s.exited
	select {
	case <-s.stopping:
	default:
		s.failed <- fmt.Errorf("%w: %s", ErrStopped, s.cluster.lastWords())
	}
}

// Stop ends the server's connections, writes a checkpoint and waits until it is gone; the
// data stays. It may be called more than once; every call waits. When ctx ends
// first, the server is told to stop at once, and recovers at the next start.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		close(s.stopping)
		s.stopErr = s.shutdown(ctx)
	})
	<-s.exited
	return s.stopErr
}

func (s *Server) shutdown(ctx context.Context) error {
	// SIGINT is PostgreSQL's "fast", SIGQUIT its "immediate" shutdown.
	if err := s.signal(syscall.SIGINT); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
	}
	s.log.WarnContext(ctx, "the private PostgreSQL does not stop in time, stopping it at once")
	return errors.Join(context.Cause(ctx), s.signal(syscall.SIGQUIT))
}

func (s *Server) signal(sig syscall.Signal) error {
	select {
	case <-s.exited:
		return nil // its pid may belong to somebody else now
	default:
	}
	if err := syscall.Kill(s.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	return nil
}

func (s *Server) makeDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSNOf("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the private PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is written after the last answer
	var found bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&found)
	if err == nil && !found {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("making database %s: %w", database, err)
	}
	return nil
}

// wait hands the child's end to everybody who waits for it.
func (s *Server) wait(cmd *exec.Cmd, out *os.File) {
	s.waitErr = cmd.Wait()
	_ = out.Close() // the server wrote it, not we
	close(s.exited)
}
