package decide_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/subscriber"
)

const usersPolicy = `
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks:
  own: {type: users, realm: tv}
  login: {type: users, realm: tv, allow_password: true, login: ["query:username", "query:password"]}
  astra: {type: users, realm: tv, allow_password: true}
  open: {type: users, realm: tv, ignore_packages: true}
  strict: {type: users, realm: tv, on_unavailable: deny}
  lax: {type: users, realm: tv, on_unavailable: allow}
  lists: {type: users, realm: tv, allow_password: true, playlist: {public: true, url: "https://tv.example.com/{stream}/index.m3u8?token={token}"}}
  private: {type: users, realm: tv, playlist: {url: "https://tv.example.com/{stream}"}}
  site: {type: securetoken, secret: "file:/secret"}
streams:
  - {match: "login/**", auth: login}
  - {match: "astra/**", auth: astra}
  - {match: "open/**", auth: open}
  - {match: "strict/**", auth: strict}
  - {match: "lax/**", auth: lax}
  - {match: "any/**", auth: {any: [own, site]}}
  - {match: "**", auth: own, grace_known: 1h, on_deny: {no_package: "https://tv.example.com/buy"}}
`

// usersBench knows a few subscribers of realm tv.
func usersBench(t testing.TB) *bench {
	t.Helper()
	b := newBench(t, usersPolicy)
	b.own.Package("tv", "basic", "news", "*/news", "sport/*")
	b.own.Package("tv", "films", "films/**")
	add := func(user string, a subscriber.Account) {
		a.Realm, a.User, a.Token = "tv", user, b.keyer.Fingerprint("token-of-"+user)
		if a.Packages == nil {
			a.Packages = []string{"basic"}
		}
		b.own.Add(a)
	}
	add("anna", subscriber.Account{Name: "Anna A.", Sessions: 3, Login: "anna", Password: subscriber.HashPassword("pass:word"), Expires: now.Add(time.Minute)})
	add("berta", subscriber.Account{Packages: []string{"gone", "films"}})
	add("carl", subscriber.Account{Blocked: now.Add(-time.Hour)})
	add("dora", subscriber.Account{Expires: now})
	add("emil", subscriber.Account{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	add("none", subscriber.Account{Packages: []string{}})
	return b
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := usersBench(t)
	for name, c := range map[string]struct {
		stream, token, query string
		outcome              access.Outcome
		reason               access.Reason
		user, text           string
	}{
		"a subscriber's token":        {"news", "token-of-anna", "", access.Allow, access.Granted, "anna", ""},
		"a stream of a pattern":       {"sport/1", "token-of-anna", "", access.Allow, access.Granted, "anna", ""},
		"a package that is gone":      {"news", "token-of-berta", "", access.Deny, access.NoPackage, "", "no package of subscriber berta"},
		"the second package":          {"films/a/b", "token-of-berta", "", access.Allow, access.Granted, "berta", ""},
		"no packages at all":          {"news", "token-of-none", "", access.Deny, access.NoPackage, "", ""},
		"packages do not count":       {"open/x", "token-of-none", "", access.Allow, access.Granted, "none", ""},
		"blocked":                     {"news", "token-of-carl", "", access.Deny, access.Blocked, "", "carl is blocked since"},
		"ended":                       {"news", "token-of-dora", "", access.Deny, access.Expired, "", "dora ended on"},
		"another address":             {"news", "token-of-emil", "", access.Deny, access.WrongIP, "", "emil"},
		"a token of nobody":           {"news", "stranger-token", "", access.Deny, access.BadToken, "", "no subscriber of realm tv"},
		"no token":                    {"news", "", "", access.Deny, access.NoToken, "", ""},
		"a password is not asked for": {"news", "anna:pass:word", "", access.Deny, access.BadToken, "", ""},
		"a token beside a verifier":   {"any/news", "token-of-anna", "", access.Allow, access.Granted, "anna", ""},
		"login and password":          {"login/news", "", "username=anna&password=pass%3Aword", access.Allow, access.Granted, "anna", ""},
		"wrong password":              {"login/news", "", "username=anna&password=password", access.Deny, access.BadToken, "", "login or password is wrong"},
		"unknown login":               {"login/news", "", "username=otto&password=password", access.Deny, access.BadToken, "", "login or password is wrong"},
		"login twice":                 {"login/news", "", "username=anna&username=otto&password=x", access.Deny, access.BadToken, "", "ambiguous"},
		"a login alone":               {"login/news", "", "username=anna", access.Deny, access.NoToken, "", ""},
		"a token where logins may be": {"login/news", "token-of-anna", "", access.Allow, access.Granted, "anna", ""},
		"login as a token":            {"astra/news", "anna:pass:word", "", access.Allow, access.Granted, "anna", ""},
		"login in astra's parameter":  {"astra/news", "", "auth=anna:pass%3Aword", access.Allow, access.Granted, "anna", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := &access.Request{Node: "web", Stream: c.stream, Token: c.token, Query: c.query, IP: netip.MustParseAddr("203.0.113.7")}
			v := b.engine.Decide(t.Context(), req)
			if v.Outcome != c.outcome || v.Reason != c.reason || v.User != c.user || !strings.Contains(v.Text, c.text) {
				t.Errorf("Decide = %s %s, user %q: %s; want %s %s, user %q: %s", v.Outcome, v.Reason, v.User, v.Text, c.outcome, c.reason, c.user, c.text)
			}
			if c.reason == access.NoPackage && c.stream == "news" && v.Location != "https://tv.example.com/buy" {
				t.Errorf("location = %q", v.Location)
			}
			decidetest.HoldsNoSecrets(t, req, v.Text, v.Steps)
			if all := v.Text; strings.Contains(all, "pass:word") || strings.Contains(all, "password=") {
				t.Errorf("the verdict holds a password: %s", all)
			}
		})
	}
	t.Run("his own limit and end", func(t *testing.T) {
		t.Parallel()
		v := b.engine.Decide(t.Context(), &access.Request{Node: "web", Stream: "news", Token: "token-of-anna", IP: netip.MustParseAddr("203.0.113.7")})
		if v.Limit != 3 || v.Lease != time.Minute || v.SessionName != "Anna A." || v.Realm != "tv" || v.Subject != b.keyer.Key("user", "tv", "anna") {
			t.Errorf("verdict = %+v, want limit 3, a lease of a minute", v)
		}
	})
}

func TestUsersWhileTheirStoreIsAway(t *testing.T) {
	t.Parallel()
	ask := func(b *bench, stream, token string, running bool) (access.Outcome, access.Reason) {
		req := &access.Request{Node: "web", Stream: stream, Token: token, IP: netip.MustParseAddr("203.0.113.7")}
		if running {
			req.Session = uuid.New()
		}
		v := b.engine.Decide(t.Context(), req)
		return v.Outcome, v.Reason
	}
	for name, c := range map[string]struct {
		down    bool
		away    time.Duration
		stream  string
		token   string
		running bool
		outcome access.Outcome
		reason  access.Reason
	}{
		"known, grace":                {away: time.Minute, stream: "news", token: "token-of-anna", outcome: access.Allow, reason: access.Granted},
		"known for too long, grace":   {away: 2 * time.Hour, stream: "news", token: "token-of-anna", outcome: access.Deny, reason: access.Unavailable},
		"running for too long, grace": {away: 2 * time.Hour, stream: "news", token: "token-of-anna", running: true, outcome: access.Allow, reason: access.Grace},
		"known, deny":                 {away: time.Minute, stream: "strict/news", token: "token-of-anna", outcome: access.Deny, reason: access.Unavailable},
		"blocked, grace":              {away: time.Minute, stream: "news", token: "token-of-carl", outcome: access.Deny, reason: access.Blocked},
		"blocked, allow":              {away: time.Minute, stream: "lax/news", token: "token-of-carl", outcome: access.Deny, reason: access.Blocked},
		"stranger, grace":             {down: true, stream: "news", token: "token-of-anna", outcome: access.Deny, reason: access.Unavailable},
		"running stranger, grace":     {down: true, stream: "news", token: "token-of-anna", running: true, outcome: access.Allow, reason: access.Grace},
		"stranger, allow":             {down: true, stream: "lax/news", token: "token-of-anna", outcome: access.Allow, reason: access.Unavailable},
		"stranger, deny":              {down: true, stream: "strict/news", token: "token-of-anna", running: true, outcome: access.Deny, reason: access.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := usersBench(t)
			b.own.Down(c.down)
			b.own.Away(c.away)
			outcome, reason := ask(b, c.stream, c.token, c.running)
			if outcome != c.outcome || reason != c.reason {
				t.Errorf("Decide = %s %s, want %s %s", outcome, reason, c.outcome, c.reason)
			}
		})
	}
}

func BenchmarkUsers(b *testing.B) {
	bench := usersBench(b)
	for name, req := range map[string]*access.Request{
		"token": {Node: "web", Stream: "news", Token: "token-of-anna"},
		"login": {Node: "web", Stream: "login/news", Query: "username=anna&password=pass%3Aword"},
	} {
		b.Run(name, func(b *testing.B) {
			req.IP = netip.MustParseAddr("203.0.113.7")
			b.ReportAllocs()
			for b.Loop() {
				if v := bench.engine.Decide(b.Context(), req); v.User != "anna" {
					b.Fatalf("Decide = %+v", v)
				}
			}
		})
	}
}
