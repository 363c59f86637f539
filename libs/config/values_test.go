package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	good := map[string]struct {
		want  time.Duration
		shown string
	}{
		"1500ms": {1500 * time.Millisecond, "1.5s"},
		"90s":    {90 * time.Second, "1m30s"},
		"6h":     {6 * time.Hour, "6h"},
		"30m":    {30 * time.Minute, "30m"},
		"3d":     {72 * time.Hour, "3d"},
		"1d12h":  {36 * time.Hour, "36h"},
		"0":      {0, "0s"},
		"1h30m":  {90 * time.Minute, "1h30m"},
	}
	for text, tt := range good {
		got, err := ParseDuration(text)
		if err != nil || got != tt.want || Duration(got).String() != tt.shown {
			t.Errorf("ParseDuration(%q) = %v, %v, shown %s; want %v, shown %s", text, got, err, Duration(got), tt.want, tt.shown)
		}
		if back, err := ParseDuration(tt.shown); err != nil || back != tt.want {
			t.Errorf("%q does not read back: %v, %v", tt.shown, back, err)
		}
	}
	for _, text := range []string{"", "d", "180", "-3s", "+3s", "1d-2h", "1.5d", "-1d", "3d2", "9999999d", "106751d999999h", "1 h", "h"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, d)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"10.2.0.5": "10.2.0.5/32", "172.16/24": "172.16.0.0/24", "10.10/16": "10.10.0.0/16", "10/8": "10.0.0.0/8",
		"192.168.0/24": "192.168.0.0/24", "10.1.2.3/16": "10.1.0.0/16", "0/0": "0.0.0.0/0",
		"2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "::/0": "::/0", "::ffff:10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.0/104": "10.0.0.0/8",
	}
	for text, want := range good {
		if got, err := ParsePrefix(text); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("ParsePrefix(%q) = %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "/", "/8", "10", "10.1", "10.1/33", "10.1/+8", "10.1/08", "10.1/", "10.1/-1", "1.2.3.4.5/8", "1.2.3.4.5",
		"256/8", "fe80::1%eth0", "::ffff:1.2.3.4/8", "10.1/8/8", "a/8", "10..1/8", "010.1.1.1",
	} {
		if p, err := ParsePrefix(text); err == nil {
			t.Errorf("ParsePrefix(%q) = %v, want an error", text, p)
		}
	}
}

func TestSecret(t *testing.T) { // sets the environment, so it is not parallel
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	t.Setenv("USHER_TEST_SECRET", "from env")
	t.Setenv("USHER_TEST_EMPTY", "")
	tests := map[string]struct {
		reference, want, err string
	}{
		"file":      {write("a", "s3cret \r\n"), "s3cret ", ""},
		"env":       {"env:USHER_TEST_SECRET", "from env", ""},
		"no file":   {"file:" + dir + "/none", "", "no such file"},
		"long file": {write("b", strings.Repeat("x", maxSecret+1)), "", "longer than"},
		"empty":     {write("c", "\n"), "", "is empty"},
		"unset":     {"env:USHER_TEST_UNSET", "", "is not set"},
		"empty env": {"env:USHER_TEST_EMPTY", "", "is empty"},
	}
	for name, tt := range tests {
		s, err := ParseSecret(tt.reference)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := s.Resolve()
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", name, got, err, tt.want, tt.err)
		}
	}
	if _, err := (Secret{}).Resolve(); err == nil {
		t.Error("the zero Secret resolves")
	}
}

func TestSecretIsNotShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "hunter2", "file:", "file:relative", "env:", "env:a b", "vault:x"} {
		if _, err := ParseSecret(text); err == nil || text != "" && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseSecret(%q): %v", text, err)
		}
	}
	s, err := ParseSecret("env:HIDDEN")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(struct{ S Secret }{s})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("secret", s))
	for _, shown := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%+v", struct{ S Secret }{s}), string(asJSON), log.String()} {
		if strings.Contains(shown, "HIDDEN") {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"limit", "lease", "idle", "on_unavailable", "any", "all", "ip", "ua"}
	tests := map[string]string{
		"limt": "limit", "limti": "limit", "Limit": "limit", "lese": "lease", "on_unavailale": "on_unavailable",
		"onunavailable": "on_unavailable", "an": "any", "anny": "any", "pi": "ip", "zzz": "", "": "", "timeout": "",
		strings.Repeat("limit", 100): "",
	}
	for word, want := range tests {
		if got := Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
