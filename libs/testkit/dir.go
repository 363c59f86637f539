package testkit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Dir makes a directory that every user may pass, as t.TempDir's parents don't let
// them, so that a private Postgres can be kept in it or in its folder "postgres". When the
// test ends, or the process however that ends, such a server is stopped and the
// directory removed.
func Dir(t testing.TB) string {
	t.Helper()
	dir, leash, err := makeDir()
	if err != nil {
		t.Fatalf("making a directory for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := leash.drop(); err != nil {
			t.Errorf("removing the test's directory: %v", err)
		}
	})
	return dir
}

// watchdog outlives us: when its standard input closes, since this process is gone for
// whatever reason, it ends the servers that are left and removes the directory.
const watchdog = `
cat >/dev/null
for pidfile in "$1/data/postmaster.pid" "$1/postgres/data/postmaster.pid"; do
  [ -f "$pidfile" ] && read -r pid <"$pidfile" && kill -QUIT "$pid" 2>/dev/null || continue
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
done
rm -rf "$1"
`

// leash holds a watchdog back for as long as it is open.
type leash struct {
	in  io.Closer
	dog *exec.Cmd
}

// drop lets the watchdog do its work and waits for it.
func (l *leash) drop() error { return errors.Join(l.in.Close(), l.dog.Wait()) }

func makeDir() (string, *leash, error) {
	dir, err := os.MkdirTemp("", "usher-test-")
	if err != nil {
		return "", nil, err
	}
	dog := exec.Command("sh", "-c", watchdog, "sh", dir)
	// Ctrl-C reaches the test binary alone; no output is kept open, since `go test` waits for its end.
	dog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := dog.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	if err := dog.Start(); err != nil {
		return "", nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	return dir, &leash{in: in, dog: dog}, os.Chmod(dir, 0o711)
}
