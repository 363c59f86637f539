package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.internal/services/usher/policyfile"
)

func TestDataKeys(t *testing.T) {
	t.Parallel()
	d := Data(t.TempDir())
	if err := d.makeKeys(); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(d.KeyFile())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.KeyFile()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key = %v, %v; want 0600", info.Mode(), err)
	}
	if err := d.makeKeys(); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(d.KeyFile()); err != nil || string(again) != string(first) {
		t.Error("the key was made anew")
	}
	if _, err := d.Keyer(); err != nil {
		t.Errorf("Keyer: %v", err)
	}
}

func TestDataLock(t *testing.T) {
	t.Parallel()
	d := Data(filepath.Join(t.TempDir(), "new", "data"))
	lock, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(); !errors.Is(err, ErrInUse) {
		t.Errorf("second open = %v, want ErrInUse", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	lock, err = d.open()
	if err != nil {
		t.Fatalf("open after the first was closed: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	d := Data(t.TempDir())
	if _, err := d.DSN(); !errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), "usher up") {
		t.Errorf("DSN before the first start = %v, want ErrNoData and the way out", err)
	}
	if err := replace(d.dsnFile(), []byte("postgres://given\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := d.DSN(); err != nil || got != "postgres://given" {
		t.Errorf("DSN = %q, %v; want the given one", got, err)
	}
}

// TestExample: the policy that a new user gets is good, its examples too, and shows
// something to try at both of its nodes.
func TestExample(t *testing.T) {
	t.Parallel()
	d := Data(t.TempDir())
	if err := errors.Join(d.makeExample(), d.makeExample()); err != nil {
		t.Fatal(err)
	}
	data, err := policyfile.Read(d.PolicyFile())
	if err != nil {
		t.Fatal(err)
	}
	p, err := policyfile.Check(t.Context(), d.PolicyFile(), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all := samples(t.Context(), p, &net.TCPAddr{IP: net.IPv4zero, Port: 8080})
	if len(all) != len(p.Snapshot.Nodes) || all[0].Node != "web1" {
		t.Fatalf("samples = %+v, want web1 first of all nodes", all)
	}
	for _, s := range all {
		if s.Allowed == "" || s.Denied == "" || !strings.Contains(s.Allowed, "'http://127.0.0.1:8080/v1/"+s.Caller+"/"+s.Node) {
			t.Errorf("nothing to try at %s: %+v", s.Node, s)
		}
	}
}
