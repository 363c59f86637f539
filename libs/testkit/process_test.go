package testkit_test

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

const holdVariable = "USHER_TESTKIT_HOLD"

func holding() bool { return os.Getenv(holdVariable) != "" }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// waitLine reads until a line begins with prefix and gives the rest of it.
func waitLine(t *testing.T, r io.Reader, prefix string) string {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("the process ended without a line that begins with %q", prefix)
	return ""
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not so within 30 s")
		case <-tick.C:
		}
	}
}
