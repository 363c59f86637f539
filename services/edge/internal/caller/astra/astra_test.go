package astra

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/caller/callertest"
)

var update = callertest.Update()

var peer = netip.MustParseAddr("10.1.0.9")

// vector is the header set H of the spec's test vectors.
func vector(query string, change map[string]string) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/astra/n1/check", RawQuery: query}, Header: http.Header{}}
	for name, value := range map[string]string{
		"X-Session-ID": "1001", "X-Channel-ID": "a001", "X-Real-IP": "10.0.0.5",
		"X-Real-Path": "/play/a001/index.m3u8", "X-Real-UA": "VLC/3.0", "X-Real-Host": "live.example.com",
	} {
		r.Header.Set(name, value)
	}
	for name, value := range change {
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Set(name, value)
	}
	return r
}

func TestParse(t *testing.T) {
	t.Parallel()
	alta := map[string]string{"X-Channel-ID": "", "X-Real-Host": "", "X-Real-Origin": "https://live.example.com:8443"}
	cases := map[string]struct {
		view   *usherv1.NodeView
		query  string
		change map[string]string
		want   access.Request
	}{
		"Astra": {query: "token=123", want: access.Request{
			Stream: "a001", Token: "123", Host: "live.example.com", Channel: "a001", CallerSession: "1001"}},
		"no query at all": {want: access.Request{
			Stream: "a001", Host: "live.example.com", Channel: "a001", CallerSession: "1001"}},
		"another parameter's name": {query: "TOKEN=1&sid=77", want: access.Request{
			Stream: "a001", Host: "live.example.com", Channel: "a001", CallerSession: "1001"}},
		"escaped token": {query: "a=1&token=a%2Bb+c", want: access.Request{
			Stream: "a001", Token: "a+b c", Host: "live.example.com", Channel: "a001", CallerSession: "1001"}},
		"Alta, default reading": {query: "token=123", change: alta, want: access.Request{
			Stream: "play/a001", Token: "123", Host: "live.example.com:8443", CallerSession: "1001"}},
		"Alta, by pattern": {view: &usherv1.NodeView{Url: "/play/{stream}/**"}, query: "token=123", change: alta, want: access.Request{
			Stream: "a001", Token: "123", Host: "live.example.com:8443", CallerSession: "1001"}},
		"another place of the token": {view: &usherv1.NodeView{Token: []string{"query:t", "path:2"}, Device: "query:dev"}, query: "dev=box7",
			want: access.Request{Stream: "a001", Token: "a001", Device: "box7", Host: "live.example.com", Channel: "a001", CallerSession: "1001"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.view == nil {
				c.view = &usherv1.NodeView{}
			}
			var q access.Request
			if err := (Adapter{}).Parse(vector(c.query, c.change), callertest.Node(t, c.view), peer, &q); err != nil {
				t.Fatalf("Parse: %v", err)
			}
			c.want.Query, c.want.Path = c.query, "/play/a001/index.m3u8"
			c.want.IP, c.want.UserAgent = netip.MustParseAddr("10.0.0.5"), "VLC/3.0"
			if q != c.want {
				t.Errorf("got  %+v\nwant %+v", q, c.want)
			}
		})
	}
}

func TestParseIP(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.5": "10.0.0.5", "2001:db8::5": "2001:db8::5", "::ffff:10.0.0.5": "10.0.0.5",
		"fe80::1%eth0": "fe80::1", " 10.0.0.5 ": "10.0.0.5",
		"10.0.0": "", "10.0.0.5:80": "", "[::1]": "", "localhost": "", "10.0.0.5, 1.2.3.4": "", "010.0.0.5": "",
	} {
		var q access.Request
		err := Adapter{}.Parse(vector("", map[string]string{"X-Real-IP": text}), callertest.Node(t, &usherv1.NodeView{}), peer, &q)
		if want == "" {
			if err == nil {
				t.Errorf("X-Real-IP %q is read as %v, want a refusal", text, q.IP)
			}
			continue
		}
		if err != nil || q.IP.String() != want {
			t.Errorf("X-Real-IP %q is read as %v (%v), want %s", text, q.IP, err, want)
		}
	}
}

func TestBadQuestions(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 9000)
	cases := map[string]struct {
		query  string
		change map[string]string
	}{
		"no session id":           {change: map[string]string{"X-Session-ID": ""}},
		"long session id":         {change: map[string]string{"X-Session-ID": long}},
		"session id not UTF-8":    {change: map[string]string{"X-Session-ID": "\xff"}},
		"no address":              {change: map[string]string{"X-Real-IP": ""}},
		"no channel and no path":  {change: map[string]string{"X-Channel-ID": "", "X-Real-Path": ""}},
		"no stream in the path":   {change: map[string]string{"X-Channel-ID": "", "X-Real-Path": "/playlist.m3u8"}},
		"path climbs":             {change: map[string]string{"X-Channel-ID": "", "X-Real-Path": "/free/../paid/x"}},
		"path climbs, escaped":    {change: map[string]string{"X-Channel-ID": "", "X-Real-Path": "/free/%2e%2e/paid/x"}},
		"path without a slash":    {change: map[string]string{"X-Real-Path": "play/a001"}},
		"channel not UTF-8":       {change: map[string]string{"X-Channel-ID": "a\xc3"}},
		"control in the channel":  {change: map[string]string{"X-Channel-ID": "a\x01"}},
		"token twice":             {query: "token=K1&token=K2"},
		"same token twice":        {query: "token=K1&a=b&token=K1"},
		"token twice, escaped":    {query: "token=K1&tok%65n=K2"},
		"token as array":          {query: "token[]=K1"},
		"token as array, escaped": {query: "token%5B%5D=K1"},
		"token and array":         {query: "token=K1&token[0]=K2"},
		"token after a space":     {query: "%20token=K1"},
		"token cut by NUL":        {query: "token%00x=K1"},
		"NUL in the token":        {query: "token=K1%00"},
		"line break in the token": {query: "token=K1%0d%0aX-A:%20b"},
		"token not UTF-8":         {query: "token=%ff"},
		"raw bytes not UTF-8":     {query: "token=\xff"},
		"bad escape":              {query: "token=%4"},
		"bad escape elsewhere":    {query: "token=1&x=%zz"},
		"long query":              {query: "token=1&x=" + long},
		"long token":              {query: "token=" + long[:5000]},
		"control in the query":    {query: "token=1\x7f"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q access.Request
			err := Adapter{}.Parse(vector(c.query, c.change), callertest.Node(t, &usherv1.NodeView{}), peer, &q)
			if _, ok := errors.AsType[*caller.Bad](err); !ok {
				t.Fatalf("Parse = %v, want a *caller.Bad", err)
			}
			for _, secret := range []string{"K1", "K2", "xxx"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds what the viewer sent: %v", err)
				}
			}
		})
	}
}

func TestHeaderSentTwice(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Session-ID", "X-Channel-ID", "X-Real-IP", "X-Real-Path", "X-Real-UA", "X-Real-Host"} {
		r := vector("token=1", nil)
		r.Header.Add(name, r.Header.Get(name))
		var q access.Request
		if err := (Adapter{}).Parse(r, callertest.Node(t, &usherv1.NodeView{}), peer, &q); err == nil {
			t.Errorf("two lines of %s are accepted", name)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	callertest.Golden(t, "answers", Adapter{}, nil, *update)
	callertest.Golden(t, "answers_302", Adapter{}, callertest.Node(t, &usherv1.NodeView{RedirectStatus: 302}), *update)
}

func FuzzParse(f *testing.F) {
	seed := func(query, session, channel, ip, path, origin string) {
		f.Add(query, session, channel, ip, path, origin)
	}
	seed("token=123", "1001", "a001", "10.0.0.5", "/play/a001/index.m3u8", "")
	seed("token=K1&token=K2", "1001", "", "2001:db8::5", "/play/a001/720p/1.ts", "https://live.example.com:8443")
	seed("token[]=K1", "1", "a", "::ffff:10.0.0.5", "/a//b", "x")
	seed("tok%65n=a%2Bb+c&sid=77;token=2", "\xff", "a/b", "fe80::1%eth0", "/free/%2e%2e/paid/x", "://")
	seed("%", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, query, session, channel, ip, path, origin string) {
		n := callertest.Node(t, &usherv1.NodeView{Device: "query:dev", Token: []string{"query:token", "path:3", "header:X-Real-UA"}})
		r := vector(query, map[string]string{
			"X-Session-ID": session, "X-Channel-ID": channel, "X-Real-IP": ip, "X-Real-Path": path,
			"X-Real-Host": "", "X-Real-Origin": origin, "X-Real-UA": origin,
		})
		var q access.Request
		if err := (Adapter{}).Parse(r, n, peer, &q); err == nil {
			callertest.Sound(t, &q)
		}
	})
}
