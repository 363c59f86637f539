package command

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), args, App{Out: &o, Err: &e, Version: "1.2.3"})
	return code, o.String(), e.String()
}

func TestMainCodes(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"version":         {[]string{"version"}, 0, "1.2.3"},
		"help":            {[]string{"--help"}, 0, "Usage: usher"},
		"unknown command": {[]string{"upp"}, 2, "usher --help"},
		"unknown flag":    {[]string{"dsn", "--dat", "x"}, 2, "usher --help"},
		"no cluster":      {[]string{"dsn", "--data", empty}, 1, "usher up --data"},
		"away":            {[]string{"sessions", "list", "--postgres", "postgres://u@127.0.0.1:1/x"}, 1, "does not answer"},
		"bad dsn":         {[]string{"sessions", "list", "--postgres", "postgres://u:secret@[/"}, 1, "cannot be read"},
		"no policy file":  {[]string{"policy", "check", filepath.Join(empty, "none")}, 1, "no such file"},
		"no edge file":    {[]string{"edge", "validate", "--config", filepath.Join(empty, "none")}, 1, "no such file"},
		"explain nothing": {[]string{"explain"}, 1, "--url"},
		"url, no node":    {[]string{"explain", "--url", "/x"}, 1, "--node"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := run(t, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("usher %v = %d, want %d and %q:\n%s%s", c.args, code, c.code, c.says, out, errs)
			}
			if strings.Contains(out+errs, "secret") {
				t.Errorf("usher %v shows a password:\n%s%s", c.args, out, errs)
			}
		})
	}
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"data": "data", "/var/lib/usher": "/var/lib/usher", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := slog.New(newScreen(&b, slog.LevelInfo)).With(slog.String("edge", "e1"))
	log.Debug("nothing")
	log.Info("policy is in force", slog.Int("revision", 3))
	log.Warn("policy file", slog.String("problem", "p.yaml:1:2: wrong"))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	want := []string{"policy is in force  edge=e1  revision=3", "WARN policy file  edge=e1: p.yaml:1:2: wrong"}
	if len(lines) != len(want) {
		t.Fatalf("screen shows %q", lines)
	}
	for i, line := range lines {
		if !strings.HasSuffix(line, want[i]) {
			t.Errorf("line %d = %q, want %q at its end", i, line, want[i])
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for d, want := range map[time.Duration]string{
		0: "just now", 30 * time.Second: "30 s ago", 5 * time.Minute: "5 min ago", 3 * time.Hour: "3 h ago", 72 * time.Hour: "3 days ago",
	} {
		if got := ago(now.Add(-d)); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{15 * time.Minute: "15 min", 24 * time.Hour: "24 h", 90 * time.Second: "1m30s"} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}
