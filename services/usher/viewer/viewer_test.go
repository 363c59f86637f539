package viewer_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/services/edge"
	"usher.internal/services/usher/viewer"
)

const nodes = `
version: 1
nodes:
  astra1: {caller: astra, from: [10.1.0.0/16]}
  web1: {caller: nginx, from: [10.2.0.0/24], url: "/hls/{stream}/**", client_ip: {header: X-Client, trust: [10.2.0.7]}}
  caddy1: {caller: caddy, from: [127.0.0.1]}
  traefik1: {caller: traefik, from: ["::1"]}
streams:
  - {match: "**", auth: allow}
`

// TestQuestion holds the questions against the edge's own reading of them.
func TestQuestion(t *testing.T) {
	t.Parallel()
	s, err := policy.Parse("test", []byte(nodes), decide.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("192.0.2.9")
	for name, c := range map[string]struct {
		node          string
		v             viewer.Viewer
		stream, token string
	}{
		"astra with a channel": {"astra1", viewer.Viewer{URL: "http://a:8000/play/x/y.m3u8?token=t", Channel: "ch 1"}, "ch 1", "t"},
		"astra by path":        {"astra1", viewer.Viewer{URL: "/play/news/index.m3u8"}, "play/news", ""},
		"nginx":                {"web1", viewer.Viewer{URL: "https://tv.example.com/hls/news/720p/a.ts?token=a%2Bb"}, "news", "a+b"},
		"caddy":                {"caddy1", viewer.Viewer{URL: "https://tv.example.com/live/a%20b/i.m3u8?token=t"}, "live/a b", "t"},
		"traefik":              {"traefik1", viewer.Viewer{URL: "/live/x/i.m3u8"}, "live/x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.v.IP, c.v.UserAgent = ip, "VLC's"
			r, err := viewer.Question(s.Nodes[c.node], c.v, "http://edge:8080")
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range s.Projections() {
				for _, n := range p.GetNodes() {
					if n.GetName() != c.node {
						continue
					}
					q, err := edge.ParseQuestion(n, r, testKeyer(t))
					if err != nil {
						t.Fatalf("the edge refuses it: %v", err)
					}
					if q.Stream != c.stream || q.Token != c.token || q.IP != ip || q.UserAgent != "VLC's" {
						t.Errorf("the edge reads stream %q token %q of %s with %q", q.Stream, q.Token, q.IP, q.UserAgent)
					}
				}
			}
		})
	}
	for _, bad := range []string{"", "news", "%zz", "http://"} {
		if _, err := viewer.Question(s.Nodes["web1"], viewer.Viewer{URL: bad}, "http://edge"); err == nil {
			t.Errorf("Question of URL %q gave no error", bad)
		}
	}
}

func TestCurl(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8080/v1/nginx/web1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "it's; $(reboot)")
	want := `curl -i -H 'User-Agent: it'\''s; $(reboot)' 'http://127.0.0.1:8080/v1/nginx/web1'`
	if got := viewer.Curl(r); got != want || strings.Contains(got, "\n") {
		t.Errorf("Curl = %s, want %s", got, want)
	}
}
