package decide_test

import (
	"fmt"
	"net/netip"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/directive"
)

const shadowOrdersPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  old: {caller: nginx, from: [127.0.0.1], enforce: off, answer: b}
  open: {caller: nginx, from: [127.0.0.1], enforce: off}
  web: {caller: nginx, from: [127.0.0.1]}
aliases: {map: {n1: news}, strict: true}
checks:
  a: {type: http, url: "http://a.example/", realm: tv}
  b: {type: http, url: "http://b.example/", realm: tv}
streams:
  - {match: "**", auth: a, limit: {sessions: 2}}
`

// What an operator orders by hand holds while the policy is tried out, and nothing else does.
func TestShadowOrders(t *testing.T) {
	t.Parallel()
	account := func(d *directive.Directive) { d.Realm, d.User = "tv", "17" }
	for _, tt := range []struct {
		name         string
		orders       orders
		node, stream string
		new, old     decidetest.Backend
		want         access.Outcome
		reason       access.Reason
		shadow       bool
		known        bool // the new check has taken him for account 17 before
	}{
		{
			name: "a banned account that only the check that answers knows", orders: orders{ban(account)}, node: "old", stream: "n1",
			new: decidetest.Backend{Status: 403}, old: decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17"}},
			want: access.Deny, reason: access.Banned,
		},
		{
			name: "a banned account that the policy refuses anyway", orders: orders{ban(account)}, node: "open", stream: "n1",
			new: decidetest.Backend{Status: 403}, want: access.Deny, reason: access.Banned, known: true,
		},
		{
			name: "an account that an override keeps out", orders: orders{override(directive.Deny, account)}, node: "old", stream: "n1",
			new: decidetest.Backend{Status: 403}, old: decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17"}},
			want: access.Deny, reason: access.Overridden,
		},
		{
			name:   "a banned address asks for a name that leads nowhere",
			orders: orders{ban(func(d *directive.Directive) { d.Network = netip.MustParsePrefix("192.0.2.0/24") })}, node: "open", stream: "news",
			want: access.Deny, reason: access.Banned,
		},
		{
			name:   "an override in the place of the check that answers",
			orders: orders{override(directive.Allow, func(d *directive.Directive) { d.Check = "b" })}, node: "old", stream: "n1",
			new: decidetest.Backend{Status: 403}, old: decidetest.Backend{Status: 403},
			want: access.Allow, reason: access.Overridden, shadow: true,
		},
		{
			name:   "whom an override lets in is not held to a limit that is tried out",
			orders: orders{override(directive.Allow, func(d *directive.Directive) { d.Stream = "news" })}, node: "old", stream: "n1",
			new: decidetest.Backend{Status: 200}, old: decidetest.Backend{Status: 200},
			want: access.Allow, reason: access.Overridden, shadow: true,
		},
		{
			name: "another account is banned", orders: orders{ban(account)}, node: "old", stream: "n1",
			new: decidetest.Backend{Status: 403}, old: decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "18"}},
			want: access.Allow, reason: access.Granted, shadow: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := directive.NewSet(tt.orders...)
			b := newBenchWith(t, shadowOrdersPolicy, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
			r := viewerAt(tt.stream, "k1")
			if tt.known {
				b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17"}})
				b.engine.Decide(t.Context(), viewerAt("before", "k1"))
			}
			b.upstream.Set("a.example", tt.new)
			b.upstream.Set("b.example", tt.old)
			r.Node, r.IP = tt.node, netip.MustParseAddr("192.0.2.9")
			v := b.engine.Decide(t.Context(), r)
			if v.Outcome != tt.want || v.Reason != tt.reason || tt.want == access.Allow && v.Shadow != tt.shadow {
				t.Errorf("Decide = %s %s (%s), in shadow %t; want %s %s, %t", v.Outcome, v.Reason, v.Text, v.Shadow, tt.want, tt.reason, tt.shadow)
			}
		})
	}
}

const sharePolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  web: {caller: nginx, from: [127.0.0.1]}
clients:
  partner: {ip: [203.0.113.9], sessions: 1, until: 2033-01-01}
checks:
  a: {type: http, url: "http://a.example/"}
streams:
  - {match: "half/*", auth: a, enforce: 50%}
  - {match: "**", auth: allow, limit: {sessions: 2, enforce: off}}
`

// Whoever is let in by his account stands at the same place when he is refused.
func TestShadowSharesHoldTheSameAccounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, sharePolicy)
	in := 0
	for i := range 24 {
		user, tok := fmt.Sprint("u", i), fmt.Sprint("k", i)
		b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": user}})
		before := b.engine.Decide(t.Context(), viewerAt("half/news", tok)).Would != ""
		b.upstream.Set("a.example", decidetest.Backend{Status: 403})
		after := b.engine.Decide(t.Context(), viewerAt("half/film", tok)).Would != ""
		if before != after {
			t.Errorf("%s is in the trial: %t; when he is refused: %t", user, before, after)
		}
		if before {
			in++
		}
	}
	if in == 0 || in == 24 {
		t.Errorf("%d of 24 are in the trial; want about half", in)
	}
}

// A partner's cap is his own: it holds where the rule's limit is tried out.
func TestShadowLeavesAClientsCap(t *testing.T) {
	t.Parallel()
	b := newBench(t, sharePolicy)
	r := viewerAt("news", "")
	r.IP = netip.MustParseAddr("203.0.113.9")
	if v := b.engine.Decide(t.Context(), r); v.Limit != 1 || v.Shadow {
		t.Errorf("client: limit %d, in shadow %t; want his cap of 1, enforced", v.Limit, v.Shadow)
	}
}
