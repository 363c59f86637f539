package testkit_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/testkit"
)

func TestDSN(t *testing.T) {
	t.Parallel()
	t.Run("each test has a migrated database of its own", func(t *testing.T) {
		t.Parallel()
		one, two := connect(t, testkit.DSN(t)), connect(t, testkit.DSN(t))
		exec1(t, one, "INSERT INTO usher.subject (key) VALUES (gen_random_uuid())")
		if got := count(t, one, "usher.subject"); got != 1 {
			t.Errorf("first database has %d rows, want 1", got)
		}
		if got := count(t, two, "usher.subject"); got != 0 {
			t.Errorf("second database has %d rows, want 0", got)
		}
	})
	t.Run("an empty one has no schema", func(t *testing.T) {
		t.Parallel()
		if got := count(t, connect(t, testkit.EmptyDSN(t)), "pg_namespace WHERE nspname = 'usher'"); got != 0 {
			t.Errorf("schemas named usher = %d, want 0", got)
		}
	})
}

// TestHoldDatabase is the other side of TestNoLeftovers: it waits to be killed.
func TestHoldDatabase(t *testing.T) {
	t.Parallel()
	if testing.Short() || !holding() {
		return
	}
	conn := connect(t, testkit.DSN(t))
	var dir string
	if err := conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	println("holds", dir)
	select {}
}

func TestNoLeftovers(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldDatabase$")
	cmd.Env = append(cmd.Environ(), holdVariable+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := waitLine(t, stderr, "holds ")
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, func() bool { return !exists(dir) && !exists(strings.TrimSuffix(dir, "/data")) })
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, conn *pgx.Conn, from string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
