package decide_test

import (
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
)

const realmPolicy = `
version: 1
nodes:
  web: {caller: nginx, from: [127.0.0.1], lease: 10m}
checks:
  portal: {type: http, url: "http://a.example/", realm: REALM, on_unavailable: grace}
streams:
  - {match: "**", auth: portal, limit: {sessions: 1}}
`

// under is another revision of the policy, over what the first one left.
func (b *bench) under(t *testing.T, source string) *bench {
	t.Helper()
	return newBenchOver(t, source, b.upstream, func(d *decide.Deps) { d.Known, d.Grants = b.known, b.grants })
}

func TestAGrantIsOfTheRealmThatTheCheckHad(t *testing.T) {
	t.Parallel()
	b := newBench(t, replaceRealm("tv"))
	b.upstream.Set("a.example", yesFor("36000"))
	if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Outcome != access.Allow || v.Realm != "tv" {
		t.Fatalf("Decide = %+v, want a user of tv", v)
	}
	other := b.under(t, replaceRealm("sport"))
	b.upstream.Set("a.example", decidetest.Backend{Status: 403})
	if v := other.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Outcome != access.Deny {
		t.Errorf("Decide = %s %s/%s, want what the other realm's portal says", v.Outcome, v.Realm, v.User)
	}
}

func TestALastWordIsOfTheRealmThatTheCheckHad(t *testing.T) {
	t.Parallel()
	b := newBench(t, replaceRealm("tv"))
	b.upstream.Set("a.example", yesFor("36000"))
	if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Outcome != access.Allow {
		t.Fatalf("Decide = %+v, want allow", v)
	}
	other := b.under(t, replaceRealm("sport"))
	b.upstream.Set("a.example", decidetest.Backend{Status: 503})
	v := other.engine.Decide(t.Context(), viewerAt("two/2", "k1"))
	if v.Outcome != access.Deny {
		t.Errorf("Decide = %s %s/%s, want that nobody of that realm is known", v.Outcome, v.Realm, v.User)
	}
}

func replaceRealm(realm string) string { return strings.Replace(realmPolicy, "REALM", realm, 1) }
