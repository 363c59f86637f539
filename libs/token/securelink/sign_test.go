package securelink

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/token"
)

func TestWhatIsSignedIsAccepted(t *testing.T) {
	t.Parallel()
	ticket := token.Ticket{
		Stream: "bbc", Path: "/hls/bbc/index.m3u8", Host: "tv.example.com", Query: "a=b", IP: netip.MustParseAddr("203.0.113.7"),
		Start: time.Unix(1700000000, 0), End: time.Unix(1700010800, 0),
	}
	for name, c := range map[string]struct {
		options func(*Options)
		ticket  func(*token.Ticket)
	}{
		"plain":         {func(*Options) {}, nil},
		"Ministra":      {func(o *Options) { o.Hash, o.MD5, o.Expires = "{secret}{path}{expires}", "st", "e" }, func(t *token.Ticket) { t.IP = netip.Addr{} }},
		"cut":           {func(o *Options) { o.Cut = []string{"/index.m3u8"} }, nil},
		"no end":        {func(o *Options) { o.Hash, o.Expires = "{path}{secret}", "" }, nil},
		"in the path":   {func(o *Options) { o.Path = "/s/{md5}/{expires}{path}" }, nil},
		"a user":        {func(o *Options) { o.Hash, o.User = "{expires}{path}{arg_u}{secret}", "u" }, func(t *token.Ticket) { t.User = "u 42&x" }},
		"encoded path":  {func(*Options) {}, func(t *token.Ticket) { t.Path = "/hls/b%20c/index.m3u8" }},
		"IPv6":          {func(*Options) {}, func(t *token.Ticket) { t.IP = netip.MustParseAddr("2001:db8::7") }},
		"the old form":  {func(o *Options) { o.Form = FormSecret }, func(t *token.Ticket) { t.IP = netip.Addr{} }},
		"host and more": {func(o *Options) { o.Hash = "{host}{stream}{arg_a}{expires}{secret}" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, tk := NewOptions(), ticket
			o.Secret = secretFile(t, "SECRETKEY")
			c.options(o)
			if c.ticket != nil {
				c.ticket(&tk)
			}
			signed, err := Sign(o, tk)
			if err != nil {
				t.Fatal(err)
			}
			v, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			id, err := v.Verify(t.Context(), &token.Question{
				Path: signed.Path, Query: signed.Query, Stream: tk.Stream, Host: tk.Host, IP: tk.IP, Now: tk.End,
			})
			if err != nil || id.User != tk.User || id.Bearer != signed.Token {
				t.Errorf("Verify(Sign()) = %+v, %v; signed %+v", id, err, signed)
			}
			parts, ok := Inspect(o, "https://tv.example.com"+signed.Path+"?"+signed.Query)
			if !ok || parts[0].Value != signed.Token {
				t.Errorf("Inspect = %+v, %t", parts, ok)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	good := token.Ticket{Stream: "bbc", Path: "/hls/bbc/index.m3u8", IP: netip.MustParseAddr("203.0.113.7"), End: time.Unix(1700010800, 0)}
	for name, change := range map[string]func(*token.Ticket, *Options){
		"no path":                    func(t *token.Ticket, _ *Options) { t.Path = "" },
		"path with dots":             func(t *token.Ticket, _ *Options) { t.Path = "/a/../b" },
		"no address":                 func(t *token.Ticket, _ *Options) { t.IP = netip.Addr{} },
		"user that is not carried":   func(t *token.Ticket, _ *Options) { t.User = "u" },
		"device":                     func(t *token.Ticket, _ *Options) { t.Device = "d" },
		"number":                     func(t *token.Ticket, _ *Options) { t.Sessions = 2 },
		"end before its start":       func(t *token.Ticket, _ *Options) { t.Start = t.End.Add(time.Second) },
		"end of nine digits":         func(t *token.Ticket, _ *Options) { t.End = time.Unix(999999999, 0) },
		"argument that stands there": func(t *token.Ticket, _ *Options) { t.Query = "md5=x" },
		"old form without a prefix":  func(t *token.Ticket, o *Options) { o.Form, t.Path, t.IP = FormSecret, "/link", netip.Addr{} },
		"old form for an address":    func(_ *token.Ticket, o *Options) { o.Form = FormSecret },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, tk := NewOptions(), good
			o.Secret = secretFile(t, "SECRETKEY")
			change(&tk, o)
			if signed, err := Sign(o, tk); err == nil {
				t.Errorf("Sign = %+v, want an error", signed)
			}
		})
	}
}

func TestInspectKnowsTheUsualNames(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://x/s/link?md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647": "hash (MD5),end,path",
		"/play/a001?st=LS-HpGJ6yb7TLHSfuj7jtw&e=1700000005":              "hash (MD5),end,path",
		"/p/5e814704a28d9bc1914ff19fa0c4a00a/link":                       "hash (MD5),link",
		"/s/link?token=x": "",
		"%zz":             "",
	} {
		parts, ok := Inspect(nil, address)
		var names []string
		for _, p := range parts {
			names = append(names, p.Name)
		}
		if !ok {
			names = nil
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("Inspect(%q) = %q, want %q", address, got, want)
		}
	}
}
