package decide_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/directive"
	"usher.internal/libs/token/securetoken"
)

const directivePolicy = `
version: 1
nodes:
  web: {caller: nginx, from: [127.0.0.1], lease: 10m}
checks:
  portal: {type: http, url: "http://a.example/", realm: tv, on_unavailable: deny}
  other: {type: http, url: "http://b.example/", on_unavailable: deny}
aliases: {map: {n1: news}}
streams:
  - {match: "open/*", auth: allow}
  - {match: "shut/*", auth: deny}
  - {match: "both/*", auth: {all: [portal, other]}}
  - {match: "news", auth: portal, limit: {sessions: 1, max: 2, by: user}}
`

// orders are in force over directivePolicy.
type orders []directive.Directive

func order(kind directive.Kind, action directive.Action, change func(*directive.Directive)) directive.Directive {
	d := directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: kind, Action: action, At: now.Add(-time.Minute), Until: now.Add(time.Hour),
		Reason: "resells", Author: "anna",
	}
	change(&d)
	return d
}

func ban(change func(*directive.Directive)) directive.Directive {
	return order(directive.Ban, directive.Deny, change)
}

func override(action directive.Action, change func(*directive.Directive)) directive.Directive {
	return order(directive.Override, action, change)
}

func (o orders) bench(t testing.TB) *bench {
	t.Helper()
	set := directive.NewSet(o...)
	return newBenchWith(t, directivePolicy, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
}

// asks is a question whose token the portal has taken for anna's before, and refuses now.
type asks struct {
	stream, token string
	portal, other int // statuses
	running       bool
	stranger      bool // the portal never heard of the token
}

func (b *bench) judge(t *testing.T, a asks) decide.Verdict {
	t.Helper()
	if a.token == "" {
		a.token = "t0ken-of-anna"
	}
	if !a.stranger {
		who := b.keyer.Fingerprint(a.token)
		b.known.Remember("portal", who, decide.Word{Allowed: true, User: "anna", SessionName: "Anna", Sessions: 2, At: now.Add(-time.Hour)})
		b.known.Remember("portal", who, decide.Word{At: now}) // the 403 of a moment ago
	}
	for host, status := range map[string]int{"a.example": a.portal, "b.example": a.other} {
		if status != 0 {
			b.upstream.Set(host, decidetest.Backend{Status: status, Headers: map[string]string{"X-UserId": "anna", "X-Max-Sessions": "2"}})
		}
	}
	req := &access.Request{
		Node: "web", Stream: a.stream, Token: a.token, Query: "token=" + a.token, IP: netip.MustParseAddr("203.0.113.7"), Device: "box",
	}
	if a.running {
		req.Session = uuid.New()
	}
	v := b.engine.Decide(t.Context(), req)
	decidetest.HoldsNoSecrets(t, req, v.Text, v.Steps)
	return v
}

func TestDirectives(t *testing.T) {
	t.Parallel()
	anna := func(d *directive.Directive) { d.Realm, d.User = "tv", "anna" }
	portal := func(d *directive.Directive) { d.Check = "portal" }
	net := func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.0/24") }
	late := func(f func(*directive.Directive)) func(*directive.Directive) {
		return func(d *directive.Directive) { f(d); d.At = now }
	}
	news := asks{stream: "news", portal: 200}
	refused := asks{stream: "news", portal: 403}
	for name, c := range map[string]struct {
		orders orders
		asks   asks
		want   string // outcome, reason and user
		asked  int    // questions to the portal
		limit  int
	}{
		"none":                               {nil, news, "allow granted anna", 1, 2},
		"ban of a network":                   {orders{ban(net)}, news, "deny banned", 0, -1},
		"ban of a node":                      {orders{ban(func(d *directive.Directive) { d.Node = "web" })}, news, "deny banned", 0, -1},
		"ban of a stream by its own name":    {orders{ban(func(d *directive.Directive) { d.Stream = "news" })}, asks{stream: "n1", portal: 200}, "deny banned", 0, -1},
		"ban of a device":                    {orders{ban(func(d *directive.Directive) { d.Device = "box" })}, news, "deny banned", 0, -1},
		"ban of a user":                      {orders{ban(anna)}, news, "deny banned anna", 1, -1},
		"ban of a realm":                     {orders{ban(func(d *directive.Directive) { d.Realm = "tv" })}, news, "deny banned anna", 1, -1},
		"ban of the user of another realm":   {orders{ban(func(d *directive.Directive) { d.Realm, d.User = "main", "anna" })}, news, "allow granted anna", 1, 2},
		"ban that is over":                   {orders{ban(func(d *directive.Directive) { net(d); d.Until = now })}, news, "allow granted anna", 1, 2},
		"ban on an open stream":              {orders{ban(net)}, asks{stream: "open/x"}, "deny banned", 0, -1},
		"allow of a network":                 {orders{override(directive.Allow, net)}, refused, "allow override anna", 0, 2},
		"allow of a network for a stranger":  {orders{override(directive.Allow, net)}, asks{stream: "news", portal: 403, stranger: true}, "allow override", 0, 1},
		"allow where the rule denies":        {orders{override(directive.Allow, net)}, asks{stream: "shut/x"}, "allow override", 0, -1},
		"allow where no rule matches":        {orders{override(directive.Allow, net)}, asks{stream: "nowhere"}, "allow override", 0, -1},
		"a ban stands above an allow":        {orders{ban(net), override(directive.Allow, late(net))}, news, "deny banned", 0, -1},
		"a user's ban above an allow":        {orders{ban(anna), override(directive.Allow, late(net))}, news, "deny banned", 0, -1},
		"a user's ban above his allow":       {orders{ban(anna), override(directive.Allow, late(anna))}, refused, "deny banned", 1, -1},
		"deny of a network":                  {orders{override(directive.Deny, net)}, news, "deny override", 0, -1},
		"deny where no rule matches":         {orders{override(directive.Deny, net)}, asks{stream: "nowhere"}, "deny override", 0, -1},
		"deny of a user":                     {orders{override(directive.Deny, anna)}, news, "deny override anna", 1, -1},
		"deny of a user after a broad allow": {orders{override(directive.Allow, net), override(directive.Deny, late(anna))}, news, "deny override anna", 0, -1},
		"allow of a user, portal says 403":   {orders{override(directive.Allow, anna)}, refused, "allow override anna", 1, 2},
		"allow of a user, portal is down":    {orders{override(directive.Allow, anna)}, asks{stream: "news"}, "allow override anna", 1, 2},
		"allow of a user, not this one":      {orders{override(directive.Allow, func(d *directive.Directive) { d.Realm, d.User = "tv", "berta" })}, refused, "deny refused", 1, -1},
		"allow of a user, token unknown":     {orders{override(directive.Allow, anna)}, asks{stream: "news", portal: 403, stranger: true}, "deny refused", 1, -1},
		"allow of a user after a broad deny": {orders{override(directive.Deny, net), override(directive.Allow, late(anna))}, news, "allow override anna", 0, 2},
		"broad deny after the user's allow":  {orders{override(directive.Allow, anna), override(directive.Deny, late(net))}, news, "deny override", 0, -1},
		"check allow, portal says 403":       {orders{override(directive.Allow, portal)}, refused, "allow override anna", 0, 2},
		"check allow for a stranger":         {orders{override(directive.Allow, portal)}, asks{stream: "news", portal: 403, stranger: true}, "allow override", 0, 1},
		"check allow from another network":   {orders{override(directive.Allow, func(d *directive.Directive) { portal(d); d.Network = netip.MustParsePrefix("10.0.0.0/8") })}, refused, "deny refused", 1, -1},
		"check allow for its user":           {orders{override(directive.Allow, func(d *directive.Directive) { portal(d); anna(d) })}, refused, "allow override anna", 0, 2},
		"check allow for another user":       {orders{override(directive.Allow, func(d *directive.Directive) { portal(d); d.Realm, d.User = "tv", "berta" })}, refused, "deny refused", 1, -1},
		"check allow, the other says no":     {orders{override(directive.Allow, portal)}, asks{stream: "both/x", other: 403}, "deny refused", 0, -1},
		"check allow, the other says yes":    {orders{override(directive.Allow, portal)}, asks{stream: "both/x", portal: 403, other: 200}, "allow override anna", 0, 2},
		"check allow and the user's ban":     {orders{override(directive.Allow, portal), ban(anna)}, refused, "deny banned anna", 0, -1},
		"check deny":                         {orders{override(directive.Deny, portal)}, news, "deny override", 0, -1},
		"one screen more":                    {orders{override(directive.Limit, func(d *directive.Directive) { anna(d); d.Limit = 3 })}, news, "allow granted anna", 1, 3},
		"a limit by check":                   {orders{override(directive.Limit, func(d *directive.Directive) { portal(d); d.Limit = 5 })}, news, "allow granted anna", 1, 5},
		"a limit where there was none":       {orders{override(directive.Limit, func(d *directive.Directive) { net(d); d.Limit = 1 })}, asks{stream: "open/x"}, "allow allow_rule", 0, 1},
		"a limit for somebody else":          {orders{override(directive.Limit, func(d *directive.Directive) { d.Realm, d.User, d.Limit = "tv", "berta", 3 })}, news, "allow granted anna", 1, 2},
		"allowed, and one screen more":       {orders{override(directive.Allow, anna), override(directive.Limit, func(d *directive.Directive) { anna(d); d.Limit = 3 })}, refused, "allow override anna", 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := c.orders.bench(t)
			v := b.judge(t, c.asks)
			if got := strings.TrimSpace(string(v.Outcome) + " " + string(v.Reason) + " " + v.User); got != c.want {
				t.Errorf("judged %q, want %q; steps %+v", got, c.want, v.Steps)
			}
			if got := b.upstream.Asked("a.example"); got != c.asked {
				t.Errorf("the portal was asked %d times, want %d", got, c.asked)
			}
			if v.Outcome == access.Allow && v.Limit != c.limit {
				t.Errorf("limit %d, want %d", v.Limit, c.limit)
			}
			if v.Outcome == access.Deny && (v.Lease != 0 || v.Seat != 0) {
				t.Errorf("a denial with lease %v and seat %v", v.Lease, v.Seat)
			}
			if v.User == "anna" && v.Outcome == access.Allow && v.Realm == "tv" && v.Subject != b.keyer.Key("user", "tv", "anna") {
				t.Error("she is not counted as herself")
			}
			c.orders.wordsIn(t, &v)
		})
	}
}

// wordsIn finds the directive that decided in the steps, with who ordered it and why.
func (o orders) wordsIn(t *testing.T, v *decide.Verdict) {
	t.Helper()
	named := slices.ContainsFunc(v.Steps, func(s access.Step) bool {
		return slices.ContainsFunc(o, func(d directive.Directive) bool { return strings.Contains(s.Text, d.Words()) })
	})
	byDirective := v.Reason == access.Banned || v.Reason == access.Overridden
	if byDirective && (!named || !strings.Contains(v.Text, "by anna, until")) {
		t.Errorf("no step says which directive decided: %+v, text %q", v.Steps, v.Text)
	}
}

func TestAnOverridesLeaseEndsWithIt(t *testing.T) {
	t.Parallel()
	soon := func(d *directive.Directive) {
		d.Realm, d.User, d.Until = "tv", "anna", now.Add(time.Minute)
	}
	for name, d := range map[string]directive.Directive{
		"allow": override(directive.Allow, soon),
		"limit": override(directive.Limit, func(d *directive.Directive) { soon(d); d.Limit = 3 }),
		"check": override(directive.Allow, func(d *directive.Directive) { soon(d); d.Check = "portal" }),
	} {
		status := 403
		if name == "limit" {
			status = 200
		}
		v := orders{d}.bench(t).judge(t, asks{stream: "news", portal: status})
		if v.Outcome != access.Allow || v.Lease != time.Minute {
			t.Errorf("%s: %s with a lease of %v, want one of a minute", name, v.Outcome, v.Lease)
		}
	}
}

func TestARunningSessionStaysWhoseItWas(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]directive.Directive{
		"check":   override(directive.Allow, func(d *directive.Directive) { d.Check = "portal" }),
		"network": override(directive.Allow, func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.7/32") }),
	} {
		v := orders{d}.bench(t).judge(t, asks{stream: "news", portal: 403, running: true, stranger: true})
		if v.Outcome != access.Allow || !v.Unavailable || v.User != "" {
			t.Errorf("%s: %s for user %q, unavailable %v, want the ledger's user to be kept", name, v.Outcome, v.User, v.Unavailable)
		}
	}
}

func TestABansTokenIsTheViewers(t *testing.T) {
	t.Parallel()
	b := orders{}.bench(t)
	d := ban(func(d *directive.Directive) { d.Token = b.keyer.Fingerprint("t0ken-of-anna") })
	if v := (orders{d}).bench(t).judge(t, asks{stream: "news", portal: 200}); v.Reason != access.Banned {
		t.Errorf("judged %s %s, want banned", v.Outcome, v.Reason)
	}
	if v := (orders{d}).bench(t).judge(t, asks{stream: "news", portal: 200, token: "another-token"}); v.Reason != access.Granted {
		t.Errorf("another token: judged %s %s, want granted", v.Outcome, v.Reason)
	}
}

// A verifier's token says itself whose it is, also where the rule wants more.
func TestAnAllowFindsTheUserInTheToken(t *testing.T) {
	t.Parallel()
	set := directive.NewSet(override(directive.Allow, func(d *directive.Directive) { d.Realm, d.User = "main", "u1" }))
	b := newBenchWith(t, `
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks:
  site: {type: securetoken, secret: "file:/secret", check_ip: false, salt_length: 8}
  portal: {type: http, url: "http://a.example/", on_unavailable: deny}
streams:
  - {match: "**", auth: {all: [site, portal]}}
`, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	b.upstream.Set("a.example", decidetest.Backend{Status: 403})
	req := &access.Request{Node: "web", Stream: "news", Token: siteToken(t, "news", "u1"), IP: netip.MustParseAddr("203.0.113.7")}
	if v := b.engine.Decide(t.Context(), req); v.Reason != access.Overridden || v.User != "u1" {
		t.Errorf("judged %s %s for %q, want u1 let in; steps %+v", v.Outcome, v.Reason, v.User, v.Steps)
	}
	req.Token += "x"
	if v := b.engine.Decide(t.Context(), req); v.Outcome != access.Deny {
		t.Errorf("a forged token was let in: %s", v.Reason)
	}
}

func BenchmarkDecideUnderManyBans(b *testing.B) {
	list := make(orders, 100_000)
	for i := range list {
		list[i] = ban(func(d *directive.Directive) {
			d.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		})
	}
	for name, o := range map[string]orders{"none": nil, "100000": list} {
		e := o.bench(b).engine
		req := &access.Request{Node: "web", Stream: "open/x", Token: "t", IP: netip.MustParseAddr("203.0.113.7")}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.Decide(b.Context(), req)
			}
		})
	}
}

// siteToken is a good token of the check site.
func siteToken(t *testing.T, stream, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("SECRETKEY"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := securetoken.NewOptions()
	o.CheckIP, o.SaltLength = false, 8
	if err := o.Secret.UnmarshalText([]byte("file:" + path)); err != nil {
		t.Fatal(err)
	}
	text, err := securetoken.Sign(o, securetoken.Ticket{Stream: stream, User: user, Start: now.Add(-time.Hour), End: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhomABanHitsIsSentWhereTheStreamsRuleSays(t *testing.T) {
	t.Parallel()
	set := directive.NewSet(ban(func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.0/24") }))
	b := newBenchWith(t, `
version: 1
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
streams:
  - {match: "news", auth: allow, on_deny: {banned: "https://tv.example.com/{reason}?s={stream}"}}
`, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	req := &access.Request{Node: "web", Stream: "news", IP: netip.MustParseAddr("203.0.113.7")}
	v := b.engine.Decide(t.Context(), req)
	if v.Reason != access.Banned || v.Location != "https://tv.example.com/banned?s=news" {
		t.Errorf("%s, sent to %q, want banned, and the rule's address", v.Reason, v.Location)
	}
}
