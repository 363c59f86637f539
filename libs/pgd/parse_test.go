package pgd

import (
	"errors"
	"testing"
)

func TestParsePostmaster(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text      string
		pid, port int
		bad       bool
	}{
		"a running server":    {text: "4711\n/data\n1700000000\n5433\n/run\n127.0.0.1\n  5 6\nready   \n", pid: 4711, port: 5433},
		"still starting":      {text: "4711\n/data\n17", pid: 4711},
		"single-user server":  {text: "-4711\n/data\n1\n", pid: 4711},
		"empty":               {text: "", bad: true},
		"process 1":           {text: "1\n", bad: true},
		"every process":       {text: "0\n", bad: true},
		"kill's -1":           {text: "-1\n", bad: true},
		"binary":              {text: "\x00\xff\n", bad: true},
		"larger than any pid": {text: "99999999999999999999\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := parsePostmaster(c.text)
			if c.bad {
				if err == nil {
					t.Fatalf("parsePostmaster(%q) = %+v, want an error", c.text, p)
				}
				return
			}
			if err != nil || p.pid != c.pid || p.port != c.port {
				t.Errorf("parsePostmaster(%q) = %+v, %v; want pid %d port %d", c.text, p, err, c.pid, c.port)
			}
		})
	}
}

func FuzzParsePostmaster(f *testing.F) {
	f.Add("4711\n/data\n1700000000\n5433\n/run\n127.0.0.1\n")
	f.Add("-1\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePostmaster(text)
		// A signal to a pid of 1 or less reaches more than one process.
		if err == nil && p.pid <= 1 {
			t.Errorf("parsePostmaster(%q) gives pid %d", text, p.pid)
		}
	})
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1":                          18,
		"postgres (PostgreSQL) 19devel":                          19,
		"postgres (EnterpriseDB) 17.2.0":                         17,
	} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("parseVersion(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestMissingPrograms(t *testing.T) {
	t.Parallel()
	if _, err := FindPrograms(9); !errors.Is(err, ErrNoPrograms) {
		t.Errorf("FindPrograms(9) = %v, want ErrNoPrograms", err)
	}
}
