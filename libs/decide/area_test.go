package decide_test

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/network"
	"usher.internal/libs/policy"
)

// A network's file counts as it is now, without a new revision of the policy.
func TestNetworkFilesAreFollowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "vpn.txt")
	source := "version: 1\nnodes: {web: {caller: nginx, from: [127.0.0.1]}}\nnetworks: {vpn: {file: " + file + "}}\n" +
		"streams: [{match: \"**\", auth: allow, deny: {network: [vpn]}}]\n"
	s, err := policy.Parse("policy.yaml", []byte(source), decide.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	files := network.NewFiles(slog.New(slog.DiscardHandler))
	deps := decide.Deps{Keyer: keyer, Networks: files}
	if _, err := decide.New(s, deps); err == nil || !strings.Contains(err.Error(), "networks.vpn") {
		t.Fatalf("New = %v, want an error that names networks.vpn", err)
	}
	write := func(text string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	write("192.0.2.0/24\n", time.Hour)
	e, err := decide.New(s, deps)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	expect := func(ip string, want access.Outcome) {
		t.Helper()
		req := &access.Request{Node: "web", Stream: "x", IP: netip.MustParseAddr(ip)}
		if v := e.Decide(t.Context(), req); v.Outcome != want {
			t.Errorf("Decide(%s) = %s, %s; want %s", ip, v.Outcome, v.Text, want)
		}
	}
	expect("192.0.2.1", access.Deny)
	expect("198.51.100.1", access.Allow)
	write("198.51.100.0/24 # since today\n", 0)
	files.Poll(t.Context())
	expect("192.0.2.1", access.Allow)
	expect("198.51.100.1", access.Deny)
}
