package policy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/match"
	"usher.internal/libs/policy"
	"usher.internal/libs/token/securetoken"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

func parse(t testing.TB, text string) *policy.Snapshot {
	t.Helper()
	s, err := policy.Parse("policy.yaml", []byte(text), kinds())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s := parse(t, `
version: 1
nodes:
  a: {caller: astra, from: [10.1.0.0/16]}
  n: {caller: nginx, from: [127.0.0.1], client_ip: {header: X-Real-IP}}
checks:
  site: {type: securetoken, secret: "env:S"}
  web: {type: http, url: "http://x/"}
streams:
  - {match: "**", auth: site, limit: {}}
`)
	wantDefaults := policy.Defaults{Lease: 180 * time.Second, Idle: time.Minute, OnUnavailable: access.FailGrace, Grace: 12 * time.Hour, GraceKnown: 24 * time.Hour}
	if s.Defaults != wantDefaults {
		t.Errorf("Defaults = %+v, want %+v", s.Defaults, wantDefaults)
	}
	day := 24 * time.Hour
	if want := (policy.Retention{Steps: 3 * day, Decisions: 30 * day, Sessions: 90 * day, Usage: 762 * day, Grants: 30 * day, Addresses: 30 * day}); s.Retention != want {
		t.Errorf("Retention = %+v, want %+v", s.Retention, want)
	}
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	wantNodes := map[string]*policy.Node{
		"a": {Name: "a", Caller: "astra", From: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Token: []string{"query:token"},
			SessionKeys: []string{"token", "stream", "device"}, Lease: 3 * time.Minute, Idle: time.Minute, Hold: 6 * time.Hour,
			Budget: 800 * time.Millisecond, RedirectStatus: 403},
		"n": {Name: "n", Caller: "nginx", From: local, Token: []string{"query:token"}, Segments: "device",
			SessionKeys: []string{"token", "stream", "device"}, ClientIPHeader: "X-Real-IP", ClientIPTrust: local,
			Lease: 3 * time.Minute, Idle: time.Minute, Budget: 2 * time.Second},
	}
	if !reflect.DeepEqual(s.Nodes, wantNodes) {
		t.Errorf("Nodes = %+v, %+v\nwant %+v, %+v", s.Nodes["a"], s.Nodes["n"], wantNodes["a"], wantNodes["n"])
	}
	if s.Nodes["a"].ShowsLife() || !s.Nodes["n"].ShowsLife() {
		t.Error("ShowsLife is wrong")
	}
	r := s.Rule("any/thing")
	if r == nil || r.Name() != `streams[0] "**"` || r.Line != 10 || r.Auth != policy.AuthAny || len(r.Checks) != 1 || r.Checks[0] != s.Checks["site"] ||
		r.OnUnavailable != access.FailGrace || r.Uncounted != access.FailAllow || r.Grace != 12*time.Hour || r.GraceKnown != day || r.Lease != 0 {
		t.Errorf("Rule = %+v", r)
	}
	if want := (policy.Limit{By: "user", Mode: access.EvictOldest}); *r.Limits[0] != want {
		t.Errorf("Limit = %+v, want %+v", *r.Limits[0], want)
	}
	if c := s.Checks["web"]; c.Timeout != 500*time.Millisecond || !c.Upstream || c.Realm != "main" || c.OnUnavailable != "" {
		t.Errorf("Check = %+v", c)
	}
	if o, ok := s.Checks["site"].Options.(*securetoken.Options); !ok || !o.CheckIP || o.Bind != "stream" {
		t.Errorf("Options = %#v", s.Checks["site"].Options)
	}
}

func TestEverything(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/cases/good-everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, string(text))
	u, err := match.ParseURL("/tv/{stream...}/index.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	web := &policy.Node{
		Name: "web.1", Caller: "nginx", Edge: "edge-1", URL: u,
		From:        []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.7/32")},
		Token:       []string{"query:token", "header:Authorization", "cookie:t", "path:2"},
		Device:      "query:device_id",
		Segments:    "token",
		SessionKeys: []string{"token", "stream", "device", "ip", "user_agent"},
		Lease:       90 * time.Second, Idle: 20 * time.Second, Budget: time.Second,
		ClientIPHeader: "X-Real-IP", ClientIPTrust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}
	if !reflect.DeepEqual(s.Nodes["web.1"], web) {
		t.Errorf("got  %+v\nwant %+v", s.Nodes["web.1"], web)
	}
	news := s.Rule("news/one")
	if news.Auth != policy.AuthAll || len(news.Checks) != 2 || news.Checks[0].Name != "site" || !news.Upstream() ||
		*news.Limits[0] != (policy.Limit{Sessions: 3, Max: 5, By: "user", Mode: access.RefuseNew}) || news.Lease != 30*time.Second ||
		news.OnUnavailable != access.FailAllow || news.Uncounted != access.FailDeny || news.Grace != time.Hour {
		t.Errorf("news = %+v", news)
	}
	if !slices.Equal(news.Allow.Tokens, []string{"abc", "12345"}) || news.Allow.IPs[0] != netip.MustParsePrefix("10.0.0.0/16") || !slices.Equal(news.Allow.UA, []string{"MAG"}) {
		t.Errorf("allow = %+v", news.Allow)
	}
	if radio := s.Rule("radio"); radio.Auth != policy.AuthAllow || radio.Uncounted != access.FailDeny {
		t.Errorf("radio = %+v", radio)
	}
	vod := s.Rule("vod/a/b")
	if !slices.Equal(vod.Domains, []string{"example.com"}) || vod.OnDeny["*"] != "http://tv.example.com" || vod.Checks[0].Realm != "tv" {
		t.Errorf("vod = %+v", vod)
	}
	want := policy.Example{
		Stream: "vod/film", Node: "caddy", IP: netip.MustParseAddr("2001:db8::1"), UserAgent: "x", Token: "y",
		At: time.Date(2026, 1, 31, 20, 15, 0, 0, time.UTC), Expect: "bad_token",
	}
	got := vod.Examples[1]
	if got.Place.Line != 68 || got.Place.Path != "streams[2].examples[1]" {
		t.Errorf("Place = %+v", got.Place)
	}
	got.Place = config.Problem{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if e := vod.Examples[0]; e.Node != "web.1" || e.IP != policy.ExampleIP {
		t.Errorf("defaults of an example = %+v", e)
	}
}

func TestTokenless(t *testing.T) {
	t.Parallel()
	s := parse(t, `
version: 1
checks:
  site: {type: securetoken, secret: "env:S"}
  web: {type: http, url: "http://x/"}
  link: {type: secure_link, secret: "env:S"}
streams:
  - {match: i, auth: link}
  - {match: j, auth: {any: [site, link]}}
  - {match: k, auth: {all: [site, link]}}
  - {match: l, auth: {all: [web, link]}}
  - {match: a, auth: allow}
  - {match: b, auth: deny}
  - {match: c, auth: site}
  - {match: d, auth: web}
  - {match: e, auth: {any: [site, web]}}
  - {match: f, auth: {all: [site, web]}}
  - {match: g, auth: site, allow: {token: [x]}}
  - {match: h, auth: deny, allow: {ip: [10/8]}}
`)
	for stream, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true, "e": true, "f": false, "g": false, "h": true, "i": true, "j": true, "k": false, "l": true} {
		if got := s.Rule(stream).Tokenless(); got != want {
			t.Errorf("Tokenless of %s = %v, want %v", stream, got, want)
		}
	}
}

// A check that, as configured, names nobody makes a limit by user count something else.
func TestNamelessWarning(t *testing.T) {
	t.Parallel()
	type options struct {
		User bool `yaml:"user"`
	}
	kind := policy.Kind{Type: "t", NewOptions: func() any { return &options{} }, NamesUser: func(o any) bool { return o.(*options).User }}
	for auth, want := range map[string]string{
		"{any: [no, yes]}": "streams[0].limit counts by user, but check no names none: who comes by it is counted by token, and without a token by address",
		"{all: [no, yes]}": "",
		"yes":              "",
		"no":               "streams[0].limit counts by user, but check no names none: who comes by it is counted by token, and without a token by address",
	} {
		text := fmt.Sprintf(`
version: 1
nodes: {n: {caller: caddy, from: [10.0.0.1]}}
checks: {no: {type: t}, yes: {type: t, user: true}}
streams: [{match: x, auth: %s, limit: {sessions: 1}}, {match: y, auth: {any: [no, yes]}}]`, auth)
		s, err := policy.Parse("p.yaml", []byte(text), []policy.Kind{kind})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, w := range s.Warnings {
			got += w.Message
		}
		if got != want {
			t.Errorf("auth: %s warns %q, want %q", auth, got, want)
		}
	}
}

// TestControlIsProjected: the password travels as its reference, and to the node's own edge alone.
func TestControlIsProjected(t *testing.T) {
	t.Setenv("A1", "hunter2")
	s := parse(t, `
version: 1
nodes:
  a: {caller: astra, from: [10.0.0.2], edge: one, control: {url: "http://10.0.0.2:8000/", user: admin, password: "env:A1", poll: 30s, kick: "off"}}
  b: {caller: flussonic, from: [10.0.0.3], edge: two}
streams:
  - {match: "**", auth: allow}
`)
	if !s.Nodes["a"].ShowsLife() || len(s.Warnings) != 0 {
		t.Errorf("warnings %v of an Astra whose sessions are listed", s.Warnings)
	}
	got := s.Projections()
	want := &usherv1.ControlView{Url: "http://10.0.0.2:8000", User: "admin", Password: "env:A1", PollMs: 30_000, TimeoutMs: 5000, NoKick: true}
	if c := got[nats.EdgeProjectionKey("one")].GetNodes()[0].GetControl(); !proto.Equal(c, want) {
		t.Errorf("control = %v, want %v", c, want)
	}
	for key, p := range got {
		text := p.String()
		if strings.Contains(text, "hunter2") || key != nats.EdgeProjectionKey("one") && strings.Contains(text, "A1") {
			t.Errorf("%s tells too much: %s", key, text)
		}
	}
}

func TestProjections(t *testing.T) {
	t.Parallel()
	s := parse(t, `
version: 1
nodes:
  z: {caller: nginx, from: [10.0.0.1], url: "/hls/{stream}/**"}
  a: {caller: astra, from: [10.0.0.2], edge: one, hold: 1h}
  b: {caller: caddy, from: [10.0.0.3], edge: two}
checks:
  site: {type: securetoken, secret: "env:THE_SECRET"}
  web: {type: http, url: "http://user-service/"}
streams:
  - {match: "free/*", auth: allow, allow: {token: [hidden-token]}, on_unavailable: allow}
  - {match: "free/**", auth: web, on_unavailable: deny, grace: 1h}
  - {match: "**", auth: site}
`)
	s.Revision = 7
	got := s.Projections()
	names := map[string]string{nats.AnyProjectionKey: "z", nats.EdgeProjectionKey("one"): "a z", nats.EdgeProjectionKey("two"): "b z"}
	if len(got) != len(names) {
		t.Fatalf("keys of %v, want those of %v", got, names)
	}
	for key, want := range names {
		p := got[key]
		var nodes []string
		for _, n := range p.GetNodes() {
			nodes = append(nodes, n.GetName())
		}
		if strings.Join(nodes, " ") != want || p.GetRevision() != 7 {
			t.Errorf("%s has nodes %v, revision %d; want %s, 7", key, nodes, p.GetRevision(), want)
		}
		var streams []string
		for _, v := range p.GetStreams() {
			streams = append(streams, fmt.Sprint(v.GetMatch(), v.GetOnUnavailable(), v.GetUncounted(), v.GetGraceMs(), v.GetUpstream(), v.GetTokenless()))
		}
		wantStreams := []string{"free/*allowallow43200000 false true", "free/**denydeny3600000 true true", "**graceallow43200000 false false"}
		if !slices.Equal(streams, wantStreams) {
			t.Errorf("%s has streams %q, want %q", key, streams, wantStreams)
		}
		raw, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, hidden := range []string{"THE_SECRET", "hidden-token", "user-service", "site"} {
			if strings.Contains(string(raw), hidden) {
				t.Errorf("%s holds %s", key, hidden)
			}
		}
	}
	z := got["any"].GetNodes()[0]
	if z.GetUrl() != "/hls/{stream}/**" || z.GetBudgetMs() != 2000 || !slices.Equal(z.GetFrom(), []string{"10.0.0.1/32"}) || z.GetSegments() != "device" {
		t.Errorf("node = %v", z)
	}
	if a := got["edge.one"].GetNodes()[0]; a.GetHoldMs() != 3_600_000 || a.GetRedirectStatus() != 403 {
		t.Errorf("node = %v", a)
	}
}

// The index finds what asking every rule in turn finds.
func TestRuleIsTheFirst(t *testing.T) {
	t.Parallel()
	parts := []string{"a", "b", "ab", "/", "*", "**", "/", "x"}
	random := rand.New(rand.NewPCG(1, 2))
	word := func(n int, parts []string) string {
		var b strings.Builder
		for range 1 + random.IntN(n) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		return strings.ReplaceAll(b.String(), "***", "**")
	}
	for range 300 {
		var b strings.Builder
		b.WriteString("version: 1\nstreams:\n")
		for range 30 {
			if pattern := word(5, parts); !strings.Contains(pattern, "***") {
				fmt.Fprintf(&b, "- {match: %q, auth: deny}\n", pattern)
			}
		}
		s := parse(t, b.String())
		slow := &policy.Snapshot{Rules: s.Rules}
		for range 50 {
			stream := word(5, []string{"a", "b", "ab", "/", "x"})
			if got, want := s.Rule(stream), slow.Rule(stream); got != want {
				t.Fatalf("Rule(%q) = %v, want %v in\n%s", stream, got, want, b.String())
			}
			odd := func(r *policy.Rule) bool { return r.Index%2 == 1 }
			if got, want := s.RuleWhere(stream, odd), slow.RuleWhere(stream, odd); got != want {
				t.Fatalf("RuleWhere(%q) = %v, want %v in\n%s", stream, got, want, b.String())
			}
		}
		for _, w := range s.Warnings {
			if !strings.Contains(w.Message, "never reached") {
				continue
			}
			var i int
			if _, err := fmt.Sscanf(w.Path, "streams[%d]", &i); err != nil {
				t.Fatal(err)
			}
			if pattern := s.Rules[i].Match.String(); !strings.Contains(pattern, "*") && slow.Rule(pattern) == s.Rules[i] {
				t.Errorf("%s is reached", w)
			}
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := policy.Parse("p.yaml", []byte("version: 1\nstreams:\n"+strings.Repeat("- {match: x, auth: nobody}\n", 5000)), kinds())
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) > 110 {
		t.Errorf("%d problems", len(problems))
	}
	s := parse(t, "version: 1\nstreams:\n"+strings.Repeat("- {match: x, auth: deny}\n", 5000))
	if len(s.Warnings) > 110 {
		t.Errorf("%d warnings", len(s.Warnings))
	}
}

// big is a policy of n streams, most of them literal.
func big(n int) string {
	var b strings.Builder
	b.WriteString("version: 1\nnodes: {w: {caller: nginx, from: [10/8]}}\nchecks: {site: {type: securetoken, secret: \"env:S\"}}\nstreams:\n")
	for i := range n {
		pattern := fmt.Sprintf("tv/channel%d", i)
		switch i % 10 {
		case 8:
			pattern = fmt.Sprintf("region%d/**", i)
		case 9:
			pattern = fmt.Sprintf("*/part%d", i)
		}
		fmt.Fprintf(&b, "  - match: %q\n    deny: {ip: [192.0.2.1]}\n    auth: site\n    limit: {sessions: 2, by: user, mode: refuse}\n    on_deny: {limit: \"https://tv.example.com/\"}\n", pattern)
	}
	b.WriteString("  - {match: \"**\", auth: deny}\n")
	return b.String()
}

func TestTenThousandStreams(t *testing.T) {
	t.Parallel()
	s := parse(t, big(10_000))
	for stream, want := range map[string]int{"tv/channel17": 17, "region9998/a/b": 9998, "x/part9999": 9999, "tv/none": 10_000} {
		if got := s.Rule(stream).Index; got != want {
			t.Errorf("Rule(%q) is %d, want %d", stream, got, want)
		}
	}
	if size := proto.Size(s.Projections()["any"]); size > 900_000 {
		t.Errorf("the projection has %d bytes, which is too long for a message", size)
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(big(10_000))
	for b.Loop() {
		if _, err := policy.Parse("p.yaml", text, kinds()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRule(b *testing.B) {
	s := parse(b, big(10_000))
	for _, stream := range []string{"tv/channel17", "region9998/a/b", "x/part9999", "no/such/stream"} {
		b.Run(strings.ReplaceAll(stream, "/", "_"), func(b *testing.B) {
			for b.Loop() {
				s.Rule(stream)
			}
		})
	}
}

// TestDigestsTellWhichRulesChanged: edges have nodes ask anew about streams whose rule judges differently.
func TestDigestsTellWhichRulesChanged(t *testing.T) {
	t.Parallel()
	const text = `
version: 1
nodes:
  a: {caller: flussonic, from: [10.0.0.2]}
networks: {office: [10.9.0.0/16]}
checks:
  site: {type: securetoken, secret: "env:THE_SECRET"}
  web: {type: http, url: "http://user-service/"}
streams:
  - {match: "free/*", auth: allow}
  - {match: "web/*", auth: web}
  - {match: "**", auth: site, limit: {sessions: 2}}
`
	digests := func(text string) (list []uint32) {
		for _, v := range parse(t, text).Projections()["any"].GetStreams() {
			list = append(list, v.GetDigest())
		}
		return list
	}
	before := digests(text)
	for change, want := range map[[2]string][]bool{
		{"[10.0.0.2]", "[10.0.0.3]"}:                      {false, false, false},
		{"sessions: 2", "sessions: 3"}:                    {false, false, true},
		{"http://user-service/", "http://other/"}:         {false, true, false},
		{"10.9.0.0/16", "10.8.0.0/16"}:                    {true, true, true},
		{`"free/*", auth: allow`, `"free/*", auth: deny`}: {true, false, false},
	} {
		after := digests(strings.Replace(text, change[0], change[1], 1))
		for i := range want {
			if (before[i] != after[i]) != want[i] || after[i] == 0 {
				t.Errorf("%s: rule %d has %x after %x, want a change: %v", change[1], i, after[i], before[i], want[i])
			}
		}
	}
}
