package command_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.internal/services/usher/command"
)

func TestCredsOfANewEdge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(code int, args ...string) string {
		t.Helper()
		var out, problems bytes.Buffer
		if got := command.Main(t.Context(), append(append([]string{"creds"}, args...), "--keys", dir), command.App{Out: &out, Err: &problems}); got != code {
			t.Fatalf("usher creds %v = %d, want %d: %s", args, got, code, &problems)
		}
		return out.String() + problems.String()
	}
	file := filepath.Join(dir, "e1.creds")
	if said := run(1, "edge", "e1", "--region", "eu", "-o", file); !strings.Contains(said, "usher creds init") {
		t.Errorf("without keys it says %q", said)
	}
	run(1, "init")
	run(0, "init", "--hub", "hub")
	first, err := os.ReadFile(filepath.Join(dir, "keys", "operator.nk"))
	if err != nil {
		t.Fatal(err)
	}
	run(0, "init") // an upgrade
	if again, err := os.ReadFile(filepath.Join(dir, "keys", "operator.nk")); err != nil || !bytes.Equal(again, first) {
		t.Errorf("init made other keys (%v)", err)
	}
	run(0, "edge", "e1", "--region", "eu", "-o", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v, want it for its owner alone", file, info, err)
	}
	run(1, "edge", "e1", "--region", "eu", "-o", file) // never over another's
	run(1, "edge", "e.1", "--region", "eu", "-o", file+"1")
	run(1, "edge", "e2", "--region", "EU", "-o", file+"2")
	if said := run(0, "region", "eu", "-o", filepath.Join(dir, "link.creds")); !strings.Contains(said, "LINK_ACCOUNT: A") {
		t.Errorf("region says %q, want the account", said)
	}
	text, err := os.ReadFile(filepath.Join(dir, "accounts.conf"))
	if err != nil || bytes.Contains(text, bytes.TrimSpace(first)) {
		t.Errorf("accounts.conf holds a secret (%v)", err)
	}
}
