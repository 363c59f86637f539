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
	"usher.internal/libs/testkit"
)

// TestCluster leads one cluster through its life: initdb is what costs time.
func TestCluster(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	first := start(t, dir)
	exec(t, first.DSN(), "CREATE TABLE kept (n int)")
	stop(t, first)
	stop(t, first) // twice is allowed
	if answers(t, first.DSN()) {
		t.Error("the server still answers after Stop")
	}
	for _, step := range []struct {
		name string
		run  func(t *testing.T, dir, dsn string)
	}{
		{"a restart keeps data, port and password", restarts},
		{"a server left running is adopted", adopts},
		{"a killed server comes back", comesBack},
		{"a stale pid file is no obstacle", stalePidFile},
		{"a port that was taken moves", portTaken},
		{"a lost connection file is told", lostConnectionFile},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, dir, first.DSN()) }) {
			return
		}
	}
}

func restarts(t *testing.T, dir, dsn string) {
	s := start(t, dir)
	if s.DSN() != dsn {
		t.Error("port or password changed over a restart")
	}
	if got, err := pgd.ReadDSN(dir); err != nil || got != dsn {
		t.Errorf("ReadDSN differs from the running server's, err %v", err)
	}
	if s.Adopted() {
		t.Error("a server that was started says it was adopted")
	}
	exec(t, dsn, "INSERT INTO kept VALUES (1)")
	stop(t, s)
}

func adopts(t *testing.T, dir, dsn string) {
	left := start(t, dir) // as if its owner was killed: nobody stops it
	adopted := start(t, dir)
	if !adopted.Adopted() || adopted.PID() != left.PID() {
		t.Fatalf("adopted = %v, process %d; want process %d", adopted.Adopted(), adopted.PID(), left.PID())
	}
	exec(t, dsn, "INSERT INTO kept VALUES (2)")
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

func comesBack(t *testing.T, dir, dsn string) {
	s := start(t, dir)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Failed()
	again := start(t, dir) // at once, while backends may still hold the memory
	exec(t, dsn, "INSERT INTO kept VALUES (3)")
	stop(t, again)
}

func stalePidFile(t *testing.T, dir, dsn string) {
	// The pid was given to another process of the same user, here our own.
	pid := fmt.Sprintf("%d\n%s/data\n1\n1\n", os.Getpid(), dir)
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	if s.Adopted() {
		t.Error("adopted a process that is no PostgreSQL")
	}
	exec(t, dsn, "INSERT INTO kept VALUES (4)")
	stop(t, s)
}

func portTaken(t *testing.T, dir, dsn string) {
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s := start(t, dir)
	if s.DSN() == dsn {
		t.Error("the port did not move")
	}
	exec(t, s.DSN(), "INSERT INTO kept VALUES (5)")
	stop(t, s)
}

func lostConnectionFile(t *testing.T, dir, _ string) {
	if err := os.Remove(filepath.Join(dir, "connection.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := pgd.Start(t.Context(), pgd.Options{Dir: dir, Unsafe: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start = %v, want ErrNotExist", err)
	}
}

// TestUnfinishedInitdb also uses a path that is longer than a unix socket's can be.
func TestUnfinishedInitdb(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testkit.Dir(t), "postgres")
	deep := filepath.Join(dir, "a-rather-long-name-of-a-folder-that-an-operator-chose", "and-another-long-one-below-it-to-be-sure")
	if err := os.MkdirAll(filepath.Join(deep, "data.new", "base"), 0o711); err != nil {
		t.Fatal(err)
	}
	s := start(t, deep)
	exec(t, s.DSN(), "SELECT 1")
	stop(t, s)
}

func TestUnreachableDirectory(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(testkit.Dir(t), "postgres")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := pgd.Start(t.Context(), pgd.Options{Dir: filepath.Join(closed, "below"), Unsafe: true})
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

func answers(t *testing.T, dsn string) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return false
	}
	_ = conn.Close(t.Context())
	return true
}
