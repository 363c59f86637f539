package forwardauth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/caller/callertest"
)

var update = callertest.Update()

var peer = netip.MustParseAddr("10.0.0.1")

func request(headers map[string]string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/x/n", nil)
	r.Host = "tv.example.com"
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	return r
}

func nginx(uri string) map[string]string {
	return map[string]string{"X-Original-URI": uri, "X-Original-Method": "GET", "X-Real-IP": "203.0.113.7", "User-Agent": "VLC"}
}

func forwardedTo(uri string) map[string]string {
	return map[string]string{
		"X-Forwarded-Uri": uri, "X-Forwarded-Method": "GET", "X-Forwarded-Host": "tv.example.com",
		"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7", "User-Agent": "VLC",
	}
}

func with(h map[string]string, name, value string) map[string]string {
	h[name] = value
	return h
}

func TestParse(t *testing.T) {
	t.Parallel()
	url := nginx("")
	delete(url, "X-Original-URI")
	url["X-Original-URL"] = "https://tv.example.com/hls/bbc/720p/1.ts?token=a%2Fb&x=1"
	cases := map[string]struct {
		adapter Adapter
		headers map[string]string
	}{
		"nginx, X-Original-URI": {Nginx(), nginx("/hls/bbc/720p/1.ts?token=a%2Fb&x=1")},
		"nginx, X-Original-URL": {Nginx(), url},
		"Caddy":                 {Caddy(), forwardedTo("/hls/bbc/720p/1.ts?token=a%2Fb&x=1")},
		"Traefik":               {Traefik(), forwardedTo("/hls/bbc/720p/1.ts?token=a%2Fb&x=1")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.headers["Referer"] = "https://site.example/player"
			var q access.Request
			if err := c.adapter.Parse(request(c.headers), callertest.Node(t, &usherv1.NodeView{}), peer, &q); err != nil {
				t.Fatalf("Parse: %v", err)
			}
			want := access.Request{
				Stream: "hls/bbc", Token: "a/b", Query: "token=a%2Fb&x=1", Path: "/hls/bbc/720p/1.ts", Host: "tv.example.com",
				IP: netip.MustParseAddr("203.0.113.7"), UserAgent: "VLC", Referer: "https://site.example/player",
			}
			if q != want {
				t.Errorf("got  %+v\nwant %+v", q, want)
			}
		})
	}
}

func TestOtherDialectsHeadersAreNotRead(t *testing.T) {
	t.Parallel()
	var q access.Request
	n := callertest.Node(t, &usherv1.NodeView{})
	h := nginx("/paid/x/1.ts")
	for name, value := range forwardedTo("/free/x/1.ts") {
		if strings.HasPrefix(name, "X-") {
			h[name] = value
		}
	}
	if err := Nginx().Parse(request(h), n, peer, &q); err != nil || q.Stream != "paid/x" {
		t.Errorf("nginx reads %q (%v), want paid/x", q.Stream, err)
	}
	h = forwardedTo("/paid/x/1.ts")
	for name, value := range nginx("/free/x/1.ts") {
		if strings.HasPrefix(name, "X-") {
			h[name] = value
		}
	}
	h["X-Real-IP"] = "198.51.100.1"
	if err := Caddy().Parse(request(h), n, peer, &q); err != nil || q.Stream != "paid/x" || q.IP.String() != "203.0.113.7" {
		t.Errorf("Caddy reads %q from %v (%v), want paid/x from 203.0.113.7", q.Stream, q.IP, err)
	}
}

func TestClientIP(t *testing.T) {
	t.Parallel()
	trusting := &usherv1.NodeView{ClientIpTrust: []string{"10.0.0.1/32", "172.16.0.0/12"}}
	cases := map[string]struct {
		adapter Adapter
		view    *usherv1.NodeView
		lines   []string // of X-Forwarded-For, or one of X-Real-IP for nginx
		peer    string
		want    string // "" is a refusal
	}{
		"nginx":                             {Nginx(), nil, []string{"203.0.113.7"}, "10.0.0.1", "203.0.113.7"},
		"nginx, header missing":             {Nginx(), nil, nil, "10.0.0.1", ""},
		"nginx, peer not trusted":           {Nginx(), trusting, []string{"203.0.113.7"}, "10.0.0.2", "10.0.0.2"},
		"nginx, two lines":                  {Nginx(), nil, []string{"203.0.113.7", "1.1.1.1"}, "10.0.0.1", ""},
		"chain of one":                      {Caddy(), trusting, []string{"203.0.113.7"}, "10.0.0.1", "203.0.113.7"},
		"the viewer wrote the first":        {Caddy(), trusting, []string{"1.1.1.1, 203.0.113.7"}, "10.0.0.1", "203.0.113.7"},
		"the viewer wrote rubbish":          {Traefik(), trusting, []string{"<script>, 203.0.113.7"}, "10.0.0.1", "203.0.113.7"},
		"through a trusted proxy":           {Caddy(), trusting, []string{"1.1.1.1, 203.0.113.7, 172.16.4.4"}, "10.0.0.1", "203.0.113.7"},
		"over two lines":                    {Caddy(), trusting, []string{"1.1.1.1, 203.0.113.7", "172.16.4.4"}, "10.0.0.1", "203.0.113.7"},
		"all are trusted":                   {Caddy(), trusting, []string{"172.16.4.4, 172.16.4.5"}, "10.0.0.1", "172.16.4.4"},
		"a trusted proxy wrote rubbish":     {Caddy(), trusting, []string{"203.0.113.7, unknown"}, "10.0.0.1", ""},
		"missing":                           {Traefik(), trusting, nil, "10.0.0.1", ""},
		"peer not trusted":                  {Traefik(), trusting, []string{"203.0.113.7"}, "10.9.9.9", "10.9.9.9"},
		"empty hop":                         {Caddy(), trusting, []string{"203.0.113.7,"}, "10.0.0.1", ""},
		"4-in-6 hop is its IPv4 self":       {Caddy(), trusting, []string{"203.0.113.7, ::ffff:172.16.4.4"}, "10.0.0.1", "203.0.113.7"},
		"too many hops":                     {Caddy(), trusting, []string{strings.Repeat("172.16.4.4,", 70) + "172.16.4.4"}, "10.0.0.1", ""},
		"a header of the operator's choice": {Nginx(), &usherv1.NodeView{ClientIpHeader: "cf-connecting-ip"}, []string{"1.1.1.1"}, "10.0.0.1", "203.0.113.99"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.view == nil {
				c.view = &usherv1.NodeView{}
			}
			h := forwardedTo("/a/b/c.ts")
			if c.adapter.kind == "nginx" {
				h = nginx("/a/b/c.ts")
			}
			r := request(h)
			r.Header.Del(c.adapter.ip)
			for _, line := range c.lines {
				r.Header.Add(c.adapter.ip, line)
			}
			r.Header.Set("CF-Connecting-IP", "203.0.113.99")
			var q access.Request
			err := c.adapter.Parse(r, callertest.Node(t, c.view), netip.MustParseAddr(c.peer), &q)
			if c.want == "" {
				if err == nil {
					t.Errorf("read as %v, want a refusal", q.IP)
				}
				return
			}
			if err != nil || q.IP.String() != c.want {
				t.Errorf("read as %v (%v), want %s", q.IP, err, c.want)
			}
		})
	}
}

func TestBadQuestions(t *testing.T) {
	t.Parallel()
	both := with(nginx("/paid/x/1.ts"), "X-Original-URL", "http://h/free/x/1.ts")
	noURI := nginx("")
	delete(noURI, "X-Original-URI")
	url := func(v string) map[string]string {
		h := nginx("")
		delete(h, "X-Original-URI")
		return with(h, "X-Original-URL", v)
	}
	noForwarded := forwardedTo("")
	delete(noForwarded, "X-Forwarded-Uri")
	cases := map[string]struct {
		adapter Adapter
		headers map[string]string
	}{
		"no URI":                    {Nginx(), noURI},
		"URI and URL":               {Nginx(), both},
		"URL without scheme":        {Nginx(), url("tv.example.com/a/b")},
		"URL without path":          {Nginx(), url("https://tv.example.com")},
		"URL without host":          {Nginx(), url("https:///a/b")},
		"URL with an odd host":      {Nginx(), url("https://a?x=/free/x/1.ts")},
		"no forwarded URI":          {Caddy(), noForwarded},
		"climbing":                  {Nginx(), nginx("/free/../paid/1.ts")},
		"climbing, escaped":         {Traefik(), forwardedTo("/free/%2e%2E/paid/1.ts")},
		"climbing, escaped slash":   {Traefik(), forwardedTo("/free/..%2fpaid/1.ts")},
		"fragment":                  {Nginx(), nginx("/paid/x/1.ts#/free/")},
		"backslash":                 {Caddy(), forwardedTo(`/free\..\paid/1.ts`)},
		"encoded backslash":         {Caddy(), forwardedTo(`/free/..%5Cpaid/1.ts`)},
		"dots encoded twice":        {Caddy(), forwardedTo(`/free/%252e%252e/paid/1.ts`)},
		"slash encoded three times": {Caddy(), forwardedTo(`/free/..%25252Fpaid/1.ts`)},
		"parent with a parameter":   {Caddy(), forwardedTo(`/free/..;/paid/1.ts`)},
		"parent, half encoded":      {Caddy(), forwardedTo(`/free/.%2e%3bx/paid/1.ts`)},
		"space":                     {Caddy(), forwardedTo("/a b/1.ts")},
		"absolute form":             {Caddy(), forwardedTo("http://tv.example.com/a/b/1.ts")},
		"path not UTF-8":            {Nginx(), nginx("/a\xff/1.ts")},
		"path not UTF-8, escaped":   {Nginx(), nginx("/a%ff/1.ts")},
		"NUL in the path":           {Nginx(), nginx("/a%00/1.ts")},
		"bad escape in the path":    {Nginx(), nginx("/a%zz/1.ts")},
		"no stream in the path":     {Nginx(), nginx("/1.ts")},
		"long path":                 {Nginx(), nginx("/" + strings.Repeat("a", 3000) + "/1.ts")},
		"token twice":               {Nginx(), nginx("/a/b/1.ts?token=K1&token=K2")},
		"token as array":            {Caddy(), forwardedTo("/a/b/1.ts?token[]=K1")},
		"method that writes":        {Nginx(), with(nginx("/a/b/1.ts"), "X-Original-Method", "DELETE")},
		"method that writes, Caddy": {Caddy(), with(forwardedTo("/a/b/1.ts"), "X-Forwarded-Method", "PUT")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q access.Request
			err := c.adapter.Parse(request(c.headers), callertest.Node(t, &usherv1.NodeView{}), peer, &q)
			if _, ok := errors.AsType[*caller.Bad](err); !ok {
				t.Errorf("Parse = %v with stream %q, want a *caller.Bad", err, q.Stream)
			}
		})
	}
}

func TestTokenPlaces(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		places  []string
		uri     string
		headers map[string]string
		want    string
		bad     bool
	}{
		"default is the query":       {nil, "/a/b/1.ts?token=K", nil, "K", false},
		"query by another name":      {[]string{"query:my_token"}, "/a/b/1.ts?my_token=K", nil, "K", false},
		"PHP's other spelling":       {[]string{"query:my_token"}, "/a/b/1.ts?my.token=K", nil, "", true},
		"bearer":                     {[]string{"header:Authorization"}, "/a/b/1.ts", map[string]string{"Authorization": "bearer K.L.M"}, "K.L.M", false},
		"header":                     {[]string{"header:x-token"}, "/a/b/1.ts", map[string]string{"X-Token": "K"}, "K", false},
		"cookie":                     {[]string{"cookie:t"}, "/a/b/1.ts", map[string]string{"Cookie": `a=1; t="K"; tt=2`}, "K", false},
		"cookie twice":               {[]string{"cookie:t"}, "/a/b/1.ts", map[string]string{"Cookie": "t=K; t=L"}, "", true},
		"path":                       {[]string{"path:2"}, "/hls/K%2B/b/1.ts", nil, "K+", false},
		"path is too short":          {[]string{"path:9"}, "/a/b/1.ts", nil, "", false},
		"first that has one":         {[]string{"query:token", "cookie:t"}, "/a/b/1.ts", map[string]string{"Cookie": "t=K"}, "K", false},
		"empty is none":              {nil, "/a/b/1.ts?token=", nil, "", false},
		"empty, then another":        {nil, "/a/b/1.ts?token=&token=K", nil, "", true},
		"a semicolon divides not":    {nil, "/a/b/1.ts?a=1;token=K", nil, "", false},
		"a name that begins like it": {nil, "/a/b/1.ts?tokens=K&to=1", nil, "", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := nginx(c.uri)
			for k, v := range c.headers {
				h[k] = v
			}
			var q access.Request
			err := Nginx().Parse(request(h), callertest.Node(t, &usherv1.NodeView{Token: c.places}), peer, &q)
			if (err != nil) != c.bad || q.Token != c.want {
				t.Errorf("token %q (%v), want %q, refused: %v", q.Token, err, c.want, c.bad)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, a := range []Adapter{Nginx(), Caddy(), Traefik()} {
		callertest.Golden(t, a.kind, a, nil, *update)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/hls/bbc/720p/1.ts?token=a%2Fb&x=1", "", "203.0.113.7", "t=K", "VLC")
	f.Add("/free/../paid/1.ts", "https://tv.example.com/a/b", "1.1.1.1, 203.0.113.7", "", "\xff")
	f.Add("/a%2f..%2Fb//c#d?e", "http://a?x=/b", "::ffff:10.0.0.1%e", `t="`, strings.Repeat("é", 600))
	f.Add("?token=1", "", "", "t", "")
	f.Fuzz(func(t *testing.T, uri, url, ip, cookie, ua string) {
		n := callertest.Node(t, &usherv1.NodeView{Device: "query:dev", Token: []string{"query:token", "cookie:t", "path:2", "header:Authorization"}})
		h := nginx(uri)
		h["X-Forwarded-Uri"], h["X-Forwarded-Host"] = uri, url
		h["X-Real-IP"], h["X-Forwarded-For"] = ip, ip
		h["Cookie"], h["User-Agent"], h["Referer"] = cookie, ua, url
		if url != "" {
			h["X-Original-URL"] = url
		}
		for _, a := range []Adapter{Nginx(), Caddy(), Traefik()} {
			var q access.Request
			if err := a.Parse(request(h), n, peer, &q); err == nil {
				callertest.Sound(t, &q)
			}
		}
	})
}
