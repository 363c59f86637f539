package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"usher.internal/libs/testkit"
)

// TestAnEdgeIsKilledInAnOutage: NATS is gone, and then the edge too, with kill -9 twice. The edge comes
// back with nothing but its file: known viewers go on, strangers wait, and what it decided alone gets
// to its rows once NATS is back, each once.
func TestAnEdgeIsKilledInAnOutage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startNATS(t, dir, "127.0.0.1:0")
	address := server.Addr().String()
	f := assemble(t, server.ClientURL(), testkit.DSN(t), `
streams:
  - {match: "**", auth: site, on_unavailable: grace}
`)
	f.recorder(t, "r1")
	f.workers(t, 1)
	edge, url := f.keptEdge(t)
	edge.said(t, "policy in force")
	l := &load{client: &http.Client{Timeout: 20 * time.Second}}
	token := signer(t)("news", "anna")
	ask := func(uri string) reply {
		begin := time.Now()
		l.ask("nginx", url+"/v1/nginx/web1", map[string]string{
			"X-Original-URI": uri, "X-Real-IP": "10.1.0.1", "User-Agent": "player/1",
		})
		return l.since(begin)[0]
	}
	if r := ask("/hls/news/index.m3u8?token=" + token); r.status != http.StatusOK {
		t.Fatalf("opening: %d %s", r.status, r.reason)
	}
	edge.written(t, f)
	server.Stop()
	for range 2 {
		edge.kill()
		edge, url = f.keptEdge(t)
		if r := ask("/hls/news/1.ts"); r.status != http.StatusOK {
			t.Errorf("a known viewer after the kill: %d %s", r.status, r.reason)
		}
		if r := ask("/hls/sport/index.m3u8?token=" + signer(t)("sport", "ben")); r.status != http.StatusForbidden || r.reason != "unavailable" {
			t.Errorf("a stranger after the kill: %d %s", r.status, r.reason)
		}
		edge.written(t, f)
	}
	edge.kill()
	startNATS(t, dir, address)
	edge, url = f.keptEdge(t)
	edge.said(t, "policy in force")
	eventually(t, startWithin, "every decision has its row", func() bool {
		return f.count(t, "SELECT count(*) FROM usher.decisions WHERE reason = 'unavailable'") == 2
	})
	eventually(t, startWithin, "the viewer's session is judged again", func() bool {
		return ask("/hls/news/2.ts").status == http.StatusOK && f.count(t, "SELECT count(*) FROM usher.sessions WHERE closed_at IS NULL") == 1
	})
	if raw, err := os.ReadFile(f.path("e1.state")); err != nil || strings.Contains(string(raw), token) {
		t.Errorf("the file beside the edge holds the token, or is not there: %v", err)
	}
	edge.signal(syscall.SIGTERM)
	edge.stop(t)
}

// keptEdge starts the edge that has a file beside it. Without NATS it has the policy from there.
func (f *fleet) keptEdge(t *testing.T) (p *process, url string) {
	t.Helper()
	p = f.launch(t, "edge", "e1", fmt.Sprintf("http: 127.0.0.1:0\ncluster_key: %s\nstate: %s\n", f.path("cluster.key"), f.path("e1.state")))
	return p, fmt.Sprintf("http://%v", p.said(t, "edge listens")["address"])
}

// written waits until the edge has written its file some times more: what was before is in it by then, also what it
// tried to report first, for a second.
func (p *process) written(t *testing.T, f *fleet) {
	t.Helper()
	changes := 0
	var last time.Time
	eventually(t, startWithin, "the file beside the edge is written", func() bool {
		info, err := os.Stat(f.path("e1.state"))
		if err == nil && info.ModTime().After(last) {
			last, changes = info.ModTime(), changes+1
		}
		return changes > 4
	})
}
