package policyimport

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
	"usher.internal/services/usher/policyfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// imported reads a file by its ending.
func imported(t testing.TB, file string) *Result {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := read(file, data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(file string, data []byte) (*Result, error) {
	if strings.HasSuffix(file, ".json") {
		return Astra(data, Options{Node: "astra1", From: []string{"10.1.0.5"}})
	}
	return Flussonic(data, Options{Node: "fl1"})
}

func TestImport(t *testing.T) {
	t.Parallel()
	var files []string
	for _, kind := range []string{"conf", "json"} {
		found, err := filepath.Glob("testdata/*." + kind)
		if err != nil || len(found) == 0 {
			t.Fatalf("finding files: %v, %d files", err, len(found))
		}
		files = append(files, found...)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			r := imported(t, file)
			golden(t, file+".policy.yaml", r.Policy)
			golden(t, file+".users.csv", r.Users)
			p, err := policyfile.Check(t.Context(), file, r.Policy, nil)
			if err != nil && !errors.Is(err, policyfile.ErrSecrets) {
				t.Errorf("the policy does not pass: %v", err)
			}
			if p != nil {
				p.Close()
			}
			for _, text := range [][]byte{r.Policy, r.Users, []byte(strings.Join(r.Notes, "\n"))} {
				if bytes.Contains(text, []byte("SECRET")) {
					t.Errorf("a secret was copied:\n%s", text)
				}
			}
			if n := strings.Count(string(r.Policy), "TODO: "); n < len(r.Notes) {
				t.Errorf("%d notes stand in the policy, want all %d", n, len(r.Notes))
			}
			users(t, r.Users)
		})
	}
}

// users holds that usher users import csv takes the file.
func users(t testing.TB, file []byte) {
	t.Helper()
	if file == nil {
		return
	}
	x, err := subscriber.NewReader(bytes.NewReader(file))
	for err == nil {
		_, err = x.Read()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the users cannot be imported: %v\n%s", err, file)
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if got == nil {
			return
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil && got != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it):\n%s", file, got)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, text string
		line       int
		has        string
	}{
		"open block":      {"a.conf", "http 80;\nstream a {\n on_play true;\n", 2, "not closed"},
		"closed twice":    {"a.conf", "stream a { }\n}\n", 2, "closes no block"},
		"no semicolon":    {"a.conf", "stream a {\n on_play true\n}", 2, "not ended by ;"},
		"open quote":      {"a.conf", "\n\nstream \"a {\n}", 3, "not closed"},
		"no end":          {"a.conf", "http 80", 1, "not ended"},
		"no name":         {"a.conf", "{ }", 1, "no name"},
		"deep":            {"a.conf", strings.Repeat("a {\n", 100), 17, "deeper"},
		"control":         {"a.conf", "a\x01;", 1, "control characters"},
		"not UTF-8":       {"a.conf", "\xff", 1, "UTF-8"},
		"huge":            {"a.conf", strings.Repeat(" ", maxFile+1), 1, "more than"},
		"many statements": {"a.conf", strings.Repeat("a;\n", maxDirectives+1), maxDirectives + 1, "statements"},
		"not JSON":        {"a.json", "{\n\"users\": SECRET}", 2, "not JSON"},
		"half of it":      {"a.json", "{\n\"users\": {\n", 3, "not JSON"},
		"a list":          {"a.json", "[]", 1, "object"},
		"another file":    {"a.json", "{\"a\": 1}", 1, "neither users"},
		"huge JSON":       {"a.json", strings.Repeat(" ", maxFile+1), 1, "more than"},
		"JSON not UTF-8":  {"a.json", "\xff", 1, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := read(tt.file, []byte(tt.text))
			bad, ok := errors.AsType[*BadFile](err)
			if !ok || bad.Line != tt.line || !strings.Contains(bad.Text, tt.has) || strings.Contains(bad.Text, "SECRET") {
				t.Errorf("error %v, want line %d and %q", err, tt.line, tt.has)
			}
		})
	}
}

func FuzzFlussonic(f *testing.F) { fuzz(f, "conf") }

func FuzzAstra(f *testing.F) { fuzz(f, "json") }

// fuzz holds that whatever can be read gives a policy that passes.
func fuzz(f *testing.F, kind string) {
	files, err := filepath.Glob("testdata/*." + kind)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := read("x."+kind, data)
		if err != nil {
			return
		}
		if _, err := policy.Parse("x", r.Policy, decide.Kinds()); err != nil {
			t.Errorf("the policy does not pass: %v\n%s", err, r.Policy)
		}
		users(t, r.Users)
	})
}
