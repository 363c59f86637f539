package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyImport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tool := func(want int, args ...string) (out, errs string) {
		t.Helper()
		var o, e bytes.Buffer
		if got := Main(t.Context(), args, App{Out: &o, Err: &e, Version: "test"}); got != want {
			t.Fatalf("usher %s = %d, want %d: %s", strings.Join(args, " "), got, want, e.String())
		}
		return o.String(), e.String()
	}
	policy, users := filepath.Join(dir, "p.yaml"), filepath.Join(dir, "u.csv")
	_, errs := tool(0, "policy", "import", "astra", "../policyimport/testdata/full.json", "--from", "10.1.0.0/16", "--from", "10.2.0.1", "-o", policy, "--users", users)
	if !strings.Contains(errs, "TODO") || !strings.Contains(errs, "usher users import csv "+users) {
		t.Errorf("it says %q, want how many notes there are and what to do with the users", errs)
	}
	text, err := os.ReadFile(policy)
	if err != nil || !strings.Contains(string(text), `from: ["10.1.0.0/16", "10.2.0.1"]`) {
		t.Errorf("%v, policy:\n%s", err, text)
	}
	if info, err := os.Stat(users); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the users' file: %v, %v, want it readable for its owner alone", info, err)
	}
	tool(0, "policy", "check", policy)
	tool(1, "policy", "import", "astra", "../policyimport/testdata/full.json", "-o", policy)
	out, _ := tool(0, "policy", "import", "flussonic", "../policyimport/testdata/global.conf")
	if !strings.Contains(out, "caller: flussonic") {
		t.Errorf("policy:\n%s", out)
	}
	bad := filepath.Join(dir, "bad.conf")
	if err := os.WriteFile(bad, []byte("stream a {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs := tool(1, "policy", "import", "flussonic", bad); !strings.Contains(errs, "bad.conf:1: ") {
		t.Errorf("it says %q, want file and line", errs)
	}
	tool(1, "policy", "import", "flussonic", "../policyimport/testdata/global.conf", "--node", "no name")
	tool(1, "policy", "import", "flussonic", "../policyimport/testdata/global.conf", "--from", "nowhere")
}
