package pgd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/pgd"
)

func TestServer(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	first := start(t, dir)
	exec(t, first.DSN(), "CREATE TABLE kept (n int)")
	stop(t, first)
	stop(t, first) // twice is allowed
	if err := pingFails(t, first.DSN()); err != nil {
		t.Error(err)
	}

	second := start(t, dir)
	if got, want := second.DSN(), first.DSN(); got != want {
		t.Error("port or password changed over a restart")
	}
	exec(t, second.DSN(), "INSERT INTO kept VALUES (1)")
	dsn, err := pgd.ReadDSN(dir)
	if err != nil || dsn != second.DSN() {
		t.Errorf("ReadDSN differs from the running server's, err %v", err)
	}
	if second.Adopted() {
		t.Error("a server that was started says it was adopted")
	}
	stop(t, second)
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	left := start(t, dir) // as if its owner was killed: nobody stops it
	adopted := start(t, dir)
	if !adopted.Adopted() || adopted.PID() != left.PID() {
		t.Fatalf("adopted = %v, process %d; want process %d", adopted.Adopted(), adopted.PID(), left.PID())
	}
	exec(t, adopted.DSN(), "SELECT 1")
	stop(t, adopted)
	select {
	case err := <-left.Failed():
		if !errors.Is(err, pgd.ErrStopped) {
			t.Errorf("Failed delivers %v, want ErrStopped", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the end of the server was not noticed")
	}
}

func TestKilledServer(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	first := start(t, dir)
	exec(t, first.DSN(), "CREATE TABLE kept (n int)")
	if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Failed()
	again := start(t, dir) // at once, while backends may still hold the memory
	exec(t, again.DSN(), "INSERT INTO kept VALUES (1)")
	stop(t, again)
}

func TestStalePidFile(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	stop(t, start(t, dir))
	// The pid was given to another process of the same user, here our own.
	pid := fmt.Sprintf("%d\n%s/data\n1\n1\n", os.Getpid(), dir)
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir)
	if again.Adopted() {
		t.Error("adopted a process that is no PostgreSQL")
	}
	stop(t, again)
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	first := start(t, dir)
	stop(t, first)
	u, err := url.Parse(first.DSN())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	second := start(t, dir)
	if second.DSN() == first.DSN() {
		t.Error("the port did not move")
	}
	exec(t, second.DSN(), "SELECT 1")
	stop(t, second)
}

func TestUnfinishedInitdb(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, dir))
}

func TestLongPath(t *testing.T) {
	t.Parallel()
	// Longer than a unix socket's path can be.
	dir := filepath.Join(setup(t), "a-rather-long-name-of-a-folder-that-an-operator-chose", "and-another-long-one-below-it-to-be-sure")
	s := start(t, dir)
	exec(t, s.DSN(), "SELECT 1")
	stop(t, s)
}

func TestLostConnectionFile(t *testing.T) {
	t.Parallel()
	dir := setup(t)
	stop(t, start(t, dir))
	if err := os.Remove(filepath.Join(dir, "connection.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := pgd.Start(t.Context(), pgd.Options{Dir: dir, Unsafe: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start = %v, want ErrNotExist", err)
	}
}

func TestUnreachableDirectory(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(setup(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := pgd.Start(t.Context(), pgd.Options{Dir: filepath.Join(closed, "postgres"), Unsafe: true})
	if os.Geteuid() != 0 {
		// Our own directory: the server runs as we do and may enter it.
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		return
	}
	if !errors.Is(err, pgd.ErrNotReachable) {
		t.Errorf("Start = %v, want ErrNotReachable", err)
	}
}

// setup makes a directory that any user may pass: t.TempDir's parents are closed.
func setup(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "usher-pgd-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func start(t *testing.T, dir string) *pgd.Server {
	t.Helper()
	s, err := pgd.Start(t.Context(), pgd.Options{Dir: dir, Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) }) // for tests that failed half way
	return s
}

func stop(t *testing.T, s *pgd.Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func pingFails(t *testing.T, dsn string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return nil
	}
	_ = conn.Close(t.Context())
	return errors.New("the server still answers after Stop")
}
