package edge

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// bench is an edge with stand-ins around it. Nothing of it runs but what a test starts.
type bench struct {
	*Service
	workers  *edgetest.Workers
	registry *prometheus.Registry
	journal  *edgetest.Journal
	feed     *edgetest.Feed
}

func testKeyer(t testing.TB) *access.Keyer {
	t.Helper()
	k, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// projection is the policy of most tests: an Astra, two nginx, a Caddy and a node of
// another edge.
func projection() *usherv1.Projection {
	return &usherv1.Projection{
		Revision: 1,
		Nodes: []*usherv1.NodeView{
			{Name: "n1", Caller: "astra", From: []string{"10.1.0.0/16"}, HoldMs: (6 * time.Hour).Milliseconds()},
			{Name: "fl1", Caller: "flussonic", From: []string{"10.3.0.1/32"}, IdleMs: 60_000, Rechecks: true},
			{Name: "web1", Caller: "nginx", From: []string{"10.2.0.1/32", "2001:db8::/32"}, IdleMs: 60_000},
			{Name: "web2", Caller: "nginx", From: []string{"10.2.0.2/32"}, IdleMs: 60_000},
			{Name: "strict", Caller: "nginx", From: []string{"10.2.0.1/32"}, Segments: "token"},
			{Name: "caddy", Caller: "caddy", From: []string{"10.2.0.1/32"}},
			{Name: "far", Caller: "nginx", From: []string{"10.2.0.1/32"}, Edge: "other"},
		},
		Streams: []*usherv1.StreamView{
			{Match: "free/**", OnUnavailable: "allow", Tokenless: true},
			{Match: "closed/**", OnUnavailable: "deny"},
			{Match: "portal/**", OnUnavailable: "grace", Upstream: true},
			{Match: "**", OnUnavailable: "grace"},
		},
	}
}

func setup(t testing.TB) *bench {
	t.Helper()
	b := &bench{workers: new(edgetest.Workers), journal: new(edgetest.Journal), feed: edgetest.NewFeed()}
	tel := telemetry.StartWith(nil)
	b.registry = tel.Registry
	b.Service = build(Config{Name: "e1", Region: "r1"},
		Deps{Keyer: testKeyer(t), Telemetry: tel},
		wires{b.workers, b.workers, b.feed, b.journal})
	b.setPolicy(t, projection())
	return b
}

func (b *bench) setPolicy(t testing.TB, p *usherv1.Projection) {
	t.Helper()
	v, err := compile(p, b.adapters)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	if b.view.Swap(v) == nil {
		close(b.viewed)
	}
}

// ask puts a request to the edge and returns its answer.
func (b *bench) ask(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Result()
}

// astraRequest is the header set H of the spec's vectors, from n1's address.
func astraRequest(query string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/astra/n1/check?"+query, nil)
	r.RemoteAddr = "10.1.0.9:4000"
	r.Header.Set("X-Session-ID", "1001")
	r.Header.Set("X-Channel-ID", "a001")
	r.Header.Set("X-Real-IP", "10.0.0.5")
	r.Header.Set("X-Real-Path", "/play/a001/index.m3u8")
	r.Header.Set("X-Real-UA", "VLC/3.0")
	r.Header.Set("X-Real-Host", "live.example.com")
	return r
}

// nginxRequest is what our snippet makes of a viewer's request.
func nginxRequest(node, uri, ip, ua string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/nginx/"+node, nil)
	r.RemoteAddr = "10.2.0.1:4000"
	if node == "web2" {
		r.RemoteAddr = "10.2.0.2:4000"
	}
	r.Header.Set("X-Original-URI", uri)
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Real-IP", ip)
	r.Header.Set("User-Agent", ua)
	return r
}

// segment is a viewer's request without a token.
func segment(uri string) *http.Request { return nginxRequest("web1", uri, "203.0.113.7", "VLC/3.0") }

func wantStatus(t *testing.T, what string, res *http.Response, want int) {
	t.Helper()
	if res.StatusCode != want {
		t.Fatalf("%s: status %d, want %d (reason %q)", what, res.StatusCode, want, res.Header.Get("X-Usher-Reason"))
	}
	if _, err := uuid.Parse(res.Header.Get("X-Usher-Decision")); err != nil {
		t.Errorf("%s: X-Usher-Decision: %v", what, err)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: Cache-Control = %q, want no-store", what, got)
	}
}

func wantReason(t *testing.T, what string, res *http.Response, want access.Reason) {
	t.Helper()
	wantStatus(t, what, res, http.StatusForbidden)
	if got := res.Header.Get("X-Usher-Reason"); got != string(want) {
		t.Errorf("%s: reason %q, want %q", what, got, want)
	}
}

func wantAsked(t *testing.T, what string, b *bench, want int) {
	t.Helper()
	if got := len(b.workers.Asked()); got != want {
		t.Fatalf("%s: workers were asked %d times, want %d", what, got, want)
	}
}

// decisionID is the id that the answer carries.
func decisionID(t *testing.T, res *http.Response) uuid.UUID {
	t.Helper()
	id, err := uuid.Parse(res.Header.Get("X-Usher-Decision"))
	if err != nil {
		t.Fatalf("X-Usher-Decision: %v", err)
	}
	return id
}

// timed runs a test in a bubble whose clock moves as fast as nothing happens.
func timed(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, setup(t)) })
}

// report moves what waits in the edge's queue into the journal.
func (b *bench) report(t *testing.T) {
	t.Helper()
	b.tallies.flush(b.now(), b.Service.journal.add)
	for _, lane := range b.Service.journal.lanes {
		for len(lane) > 0 {
			if !b.Service.journal.put(t.Context(), <-lane) {
				t.Fatal("journal entry was not stored")
			}
		}
	}
}
