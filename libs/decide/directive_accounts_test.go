package decide_test

import (
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/directive"
)

const failAllowPolicy = `
version: 1
nodes:
  web: {caller: nginx, from: [127.0.0.1], lease: 10m}
checks:
  portal: {type: http, url: "http://a.example/", realm: tv, on_unavailable: allow}
streams:
  - {match: "**", auth: portal, limit: {sessions: 1}}
`

func TestABanHoldsWhereAFailModeAllows(t *testing.T) {
	t.Parallel()
	set := directive.NewSet(ban(func(d *directive.Directive) { d.Realm, d.User = "tv", "anna" }))
	b := newBenchWith(t, failAllowPolicy, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	b.known.Remember("portal", b.keyer.Fingerprint("k1"), decide.Word{Allowed: true, User: "anna", At: now})
	b.upstream.Set("a.example", decidetest.Backend{Status: 503})
	if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Reason != access.Banned {
		t.Errorf("Decide = %s %s %s/%s, want banned: the portal knew whose token it is", v.Outcome, v.Reason, v.Realm, v.User)
	}
	if v := b.engine.Decide(t.Context(), viewerAt("news", "k2")); v.Outcome != access.Allow {
		t.Errorf("Decide = %+v, want that a stranger gets in", v)
	}
}

func TestABanHoldsForEachAccountOfAll(t *testing.T) {
	t.Parallel()
	const both = `
version: 1
nodes:
  web: {caller: nginx, from: [127.0.0.1], lease: 10m}
checks:
  portal: {type: http, url: "http://a.example/", realm: tv, on_unavailable: deny}
  other: {type: http, url: "http://b.example/", realm: shop, on_unavailable: deny}
streams:
  - {match: "**", auth: {all: [portal, other]}}
`
	set := directive.NewSet(ban(func(d *directive.Directive) { d.Realm, d.User = "shop", "7" }))
	b := newBenchWith(t, both, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "anna"}})
	b.upstream.Set("b.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "7"}})
	if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Reason != access.Banned {
		t.Errorf("Decide = %s %s %s/%s, want banned as shop/7", v.Outcome, v.Reason, v.Realm, v.User)
	}
}
