package viewing_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"usher.internal/libs/pgstore"
)

const namesPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
  caddy1: {caller: caddy, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
  astra1: {caller: astra, from: [127.0.0.1], budget: 10s}
  astra2: {caller: astra, from: [127.0.0.1], budget: 10s, redirect_status: 302}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
aliases:
  map: {crf79: clock, "news 24&7": news}
  http: {url: "@NAMES@", cache: 0, timeout: 5s}
  strict: true
clients:
  partner: {ip: [198.51.100.7], sessions: 3, streams: ["feed/*"]}
streams:
  - match: "**"
    auth: site
    limit: {sessions: 1, mode: refuse}
    on_deny:
      no_token: "https://tv.example.com/login?next={stream}"
      no_session: "https://tv.example.com/login?next={stream}"
      "*": "https://tv.example.com/no/{reason}?s={stream}&d={decision}"
`

// names is a cluster whose viewers ask by other names than streams have.
func names(t *testing.T) *cluster {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("name") == "temp" {
			_, _ = io.WriteString(w, "clock") // a worker that has gone needs no answer
			return
		}
		if strings.HasPrefix(r.URL.Query().Get("name"), "feed") {
			_, _ = io.WriteString(w, "feed/"+r.URL.Query().Get("name"))
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(service.Close)
	policy := strings.ReplaceAll(namesPolicy, "@NAMES@", service.URL+"/?key=1")
	return setup(t, shape{edges: 1, workers: 2, policy: policy})
}

func TestViewersAskByOtherNamesThanStreamsHave(t *testing.T) {
	t.Parallel()
	c := names(t)
	edge := c.edges[0]
	token := c.signFor("clock", "family", netip.Addr{}, false)
	tv := viewer{node: "web1", stream: "crf79", token: token, ip: "192.0.2.1", agent: "TV"}
	if a := c.do(tv.nginx(edge)); a.status != http.StatusOK {
		t.Fatalf("AL-1: answered %v, want 200", a)
	}
	tv.token, tv.file = "", "1.ts"
	if a := c.do(tv.nginx(edge)); a.status != http.StatusOK {
		t.Errorf("a segment under the alias: answered %v, want 200", a)
	}
	// The same user by another alias of the same stream, which only the service knows.
	phone := viewer{node: "web1", stream: "temp", token: token, ip: "192.0.2.9", agent: "Phone"}
	if a := c.do(phone.nginx(edge)); a.status != http.StatusForbidden || a.reason != "limit" {
		t.Errorf("the second of one seat: answered %v, want 403 limit", a)
	}
	phone.stream = "clock"
	if a := c.do(phone.nginx(edge)); a.reason != "no_alias" || a.header.Get("X-Usher-Location") == "" {
		t.Errorf("strict: answered %v, want no_alias with an address", a)
	}
	phone.stream = "nosuch"
	if a := c.do(phone.nginx(edge)); a.reason != "no_alias" {
		t.Errorf("a name that nobody knows: answered %v, want no_alias", a)
	}
	seats := c.live(pgstore.SessionFilter{User: "family"})
	if len(seats) != 1 || seats[0].Stream != "clock" {
		t.Errorf("sessions %+v, want one on clock", seats)
	}
	rows := c.rows(pgstore.DecisionFilter{Stream: "clock"})
	if len(rows) != 3 || rows[0].Reason != "no_alias" || rows[1].Reason != "limit" || rows[2].Outcome != "allow" {
		t.Errorf("rows of clock %+v, want the seat, the refusal of the limit, and that of strict", rows)
	}
}

func TestAPartnerTakesManyStreamsFromOneAddress(t *testing.T) {
	t.Parallel()
	c := names(t)
	edge := c.edges[0]
	take := func(stream string) answer {
		v := viewer{node: "web1", stream: stream, ip: "198.51.100.7", agent: "HeadEnd"}
		return c.do(v.nginx(edge))
	}
	for _, stream := range []string{"feed1", "feed2", "feed3"} {
		if a := take(stream); a.status != http.StatusOK {
			t.Fatalf("%s: answered %v, want 200", stream, a)
		}
	}
	if a := take("feed4"); a.reason != "limit" {
		t.Errorf("above the cap: answered %v, want limit", a)
	}
	for _, stream := range []string{"feed1", "feed2", "feed3"} {
		if a := take(stream); a.status != http.StatusOK {
			t.Errorf("%s again: answered %v, want 200", stream, a)
		}
	}
	live := c.live(pgstore.SessionFilter{User: "partner"})
	if len(live) != 3 {
		t.Fatalf("%d sessions, want 3: none was zapped", len(live))
	}
	for _, s := range live {
		if s.ClosedAt != nil || s.Realm != "clients" || !strings.HasPrefix(s.Stream, "feed/feed") {
			t.Errorf("session %+v, want a live one of realm clients", s)
		}
	}
	stranger := viewer{node: "web1", stream: "feed1", ip: "198.51.100.8", agent: "HeadEnd"}
	if a := c.do(stranger.nginx(edge)); a.status != http.StatusForbidden {
		t.Errorf("another address: answered %v, want 403", a)
	}
}

func TestRefusedViewersAreSentWhereThePolicySays(t *testing.T) {
	t.Parallel()
	c := names(t)
	edge := c.edges[0]
	server := startNginx(t, forwardauthREADME, edge, "news", "sport")
	res, err := c.client.Do(get(server + "/hls/news%2024&7/index.m3u8"))
	must(t, err)
	_ = res.Body.Close()
	if got, want := res.Header.Get("Location"), "https://tv.example.com/login?next="; res.StatusCode != http.StatusFound || !strings.HasPrefix(got, want) {
		t.Errorf("nginx, no token: %d to %q, want 302 to %s", res.StatusCode, got, want)
	}
	res, err = c.client.Do(get(server + "/hls/@evil.example&d=/index.m3u8?token=1"))
	must(t, err)
	_ = res.Body.Close()
	id := c.rows(pgstore.DecisionFilter{Outcome: "deny", Stream: "@evil.example&d="})
	if len(id) != 1 {
		t.Fatalf("%d rows, want one", len(id))
	}
	want := "https://tv.example.com/no/no_alias?s=%40evil.example%26d%3D&d=" + id[0].ID.String()
	if got := res.Header.Get("Location"); res.StatusCode != http.StatusFound || got != want {
		t.Errorf("nginx, no such name: %d to %q, want 302 to %s", res.StatusCode, got, want)
	}
	bad := viewer{stream: "crf79", token: "x", ip: "192.0.2.1", agent: "TV", session: "7"}
	to := func(a answer) string {
		return "https://tv.example.com/no/bad_token?s=crf79&d=" + a.decision.String()
	}
	bad.node = "astra1"
	if a := c.do(bad.astra(edge)); a.status != http.StatusForbidden || a.header.Get("X-Location") != to(a) || a.header.Get("Location") != "" {
		t.Errorf("astra: %v with %v, want 403 and X-Location", a, a.header)
	}
	bad.node = "astra2"
	if a := c.do(bad.astra(edge)); a.status != http.StatusFound || a.header.Get("X-Location") != to(a) || a.header.Get("Location") != to(a) {
		t.Errorf("astra with redirect_status 302: %v with %v, want 302 and both headers", a, a.header)
	}
	r := get(edge + "/v1/caddy/caddy1")
	for name, value := range map[string]string{
		"X-Forwarded-Uri": "/hls/crf79/1.ts?token=x", "X-Forwarded-Method": "GET", "X-Forwarded-For": "192.0.2.5", "User-Agent": "TV",
	} {
		r.Header.Set(name, value)
	}
	if a := c.do(r); a.status != http.StatusFound || a.header.Get("Location") != to(a) {
		t.Errorf("caddy: %v with %v, want 302", a, a.header)
	}
}
