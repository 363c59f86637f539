package decide_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
)

const examplesPolicy = `
version: 1
nodes:
  web: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", token: ["query:t", "path:1"]}
  plain: {caller: nginx, from: [127.0.0.1]}
checks:
  site: {type: securetoken, secret: "file:/secret"}
  a: {type: http, url: "http://a.example/"}
streams:
  - match: bbc
    auth: site
    examples:
      - {url: "https://tv.example.com/hls/bbc/720p/s1.ts?t=bf2c482aea54e449bdd0d9f300b6e13053927aa8-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000", ip: 203.0.113.7, at: "2023-11-14T23:00:00Z", expect: EXPECT}
      - {stream: bbc, token: bf2c482aea54e449bdd0d9f300b6e13053927aa8-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000, ip: 203.0.113.7, at: "2026-01-01T00:00:00Z", expect: expired}
      - {url: "/hls/bbc/index.m3u8", expect: bad_token}
      - {stream: bbc, expect: no_token}
      - {url: "/bbc/index.m3u8", node: plain, expect: deny}
  - match: "**"
    auth: a
    examples:
      - {stream: x, token: y, expect: unavailable}
`

func TestExamples(t *testing.T) {
	t.Parallel()
	t.Run("as expected", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, strings.Replace(examplesPolicy, "EXPECT", "allow", 1))
		if ps := b.engine.RunExamples(t.Context()); len(ps) != 0 {
			t.Errorf("RunExamples = %v, want none", config.Problems(ps))
		}
		if n := b.upstream.Asked("a.example"); n != 0 {
			t.Errorf("the middleware was asked %d times", n)
		}
	})
	t.Run("not as expected", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, strings.Replace(examplesPolicy, "EXPECT", "deny", 1))
		ps := b.engine.RunExamples(t.Context())
		if len(ps) != 1 || ps[0].Line != 13 || !strings.Contains(ps[0].Message, "expects deny, the policy says allow") || ps[0].Warning {
			t.Errorf("RunExamples = %v, want one problem in line 13", config.Problems(ps))
		}
	})
	t.Run("middleware reached", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, strings.Replace(strings.Replace(examplesPolicy, "EXPECT", "allow", 1), "expect: unavailable", "expect: allow", 1))
		ps := b.engine.RunExamples(t.Context())
		if len(ps) != 1 || !strings.Contains(ps[0].Message, "do not ask middlewares") {
			t.Errorf("RunExamples = %v, want one that names middlewares", config.Problems(ps))
		}
	})
	t.Run("no stream in the URL", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, strings.NewReplacer("EXPECT", "allow", `url: "/hls/bbc/index.m3u8"`, `url: "/other"`).Replace(examplesPolicy))
		ps := b.engine.RunExamples(t.Context())
		if len(ps) != 1 || !strings.Contains(config.Problems(ps).Error(), "no stream's name") {
			t.Errorf("RunExamples = %v, want one that names the URL", config.Problems(ps))
		}
	})
}

func TestNewNamesEveryCheckThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	s, err := policy.Parse("policy.yaml", []byte(`
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks:
  one: {type: securetoken, secret: "file:/nonexistent/one"}
  two: {type: securetoken, secret: "file:/nonexistent/two"}
streams:
  - {match: "**", auth: {any: [one, two]}}
`), decide.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	_, err = decide.New(s, decide.Deps{Keyer: keyer})
	if err == nil || !strings.Contains(err.Error(), "check one") || !strings.Contains(err.Error(), "check two") {
		t.Errorf("New = %v, want both checks named", err)
	}
	if _, err := decide.New(s, decide.Deps{}); err == nil {
		t.Error("New took no keyer")
	}
	for name, check := range map[string]string{
		"unknown option":     `{type: securetoken, secret: "env:X", bnd: path}`,
		"secret in clear":    `{type: securetoken, secret: "hunter2"}`,
		"bind misspelt":      `{type: securetoken, secret: "env:X", bind: channel}`,
		"url without scheme": `{type: http, url: "auth.example.com/check"}`,
		"url with password":  `{type: http, url: "http://u:hunter2@auth.example.com/check"}`,
	} {
		_, err := policy.Parse("policy.yaml", []byte(`
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks: {one: `+check+`}
streams: [{match: "**", auth: one}]
`), decide.Kinds())
		var ps config.Problems
		if !errors.As(err, &ps) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: Parse = %v, want problems without the secret", name, err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	bench := newBench(b, `
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks: {site: {type: securetoken, secret: "file:/secret"}}
streams:
  - match: "**"
    deny: {ip: [198.51.100.0/24], ua: [curl]}
    domains: ["example.com", "*.example.com"]
    auth: site
    limit: {sessions: 2}
`)
	req := &access.Request{
		Node: "web", Stream: "bbc", Referer: "https://www.example.com/watch", UserAgent: "VLC/3.0",
		Token: "561667b74c202ffdb1d12b46a1435444e67267a6-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000-user42",
	}
	req.IP = netip.MustParseAddr("203.0.113.7")
	req.Query = "token=" + req.Token
	b.ReportAllocs()
	for b.Loop() {
		if v := bench.engine.Decide(b.Context(), req); v.Outcome != access.Allow || v.User != "user42" {
			b.Fatalf("Decide = %+v", v)
		}
	}
}
