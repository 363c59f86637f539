package decide_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/directive"
)

const limitsPolicy = `
version: 1
defaults: {on_unavailable: deny}
networks: {abroad: [203.0.113.0/24]}
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks: {a: {type: http, url: "http://a.example/"}}
streams:
  - match: sport
    auth: a
    limit:
      - {sessions: 5, max: 4, mode: refuse}
      - {sessions: 2, max: 2, when: 'ip in networks.abroad', mode: refuse}
      - {sessions: 2, by: device}
      - {sessions: 3, by: ip, mode: refuse}
      - {sessions: 1, scope: rule, mode: soft, cut_after: 30s}
  - {match: free, auth: allow}
  - {match: "**", auth: a, limit: {sessions: 1, mode: soft}}
`

// limitsOf decides a question of a box at an address.
func (b *bench) limitsOf(t *testing.T, stream, ip, token, device string) decide.Verdict {
	t.Helper()
	r := viewerAt(stream, token)
	r.Node, r.IP, r.Device = "web", netip.MustParseAddr(ip), device
	v := b.engine.Decide(t.Context(), r)
	if v.Outcome != access.Allow {
		t.Fatalf("%s %s: %s", v.Outcome, v.Reason, v.Text)
	}
	return v
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := newBench(t, limitsPolicy)
	b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17", "X-Max-Sessions": "9"}})

	home := b.limitsOf(t, "sport", "192.0.2.1", "t1", "tv")
	abroad := b.limitsOf(t, "sport", "203.0.113.1", "t1", "tv")
	const others = "at most 2 seats of this device, evict_oldest; at most 3 seats of this address, refuse; " +
		`at most 1 seats of this user in streams[0] "sport", soft`
	for _, c := range []struct {
		v    decide.Verdict
		want string
		told int
	}{
		{home, "at most 4 seats, refuse; " + others, 4},
		{abroad, "at most 2 seats, refuse; at most 4 seats of this user, refuse; " + others, 2},
		{b.limitsOf(t, "other", "192.0.2.1", "t1", "tv"), "at most 9 seats, soft", 9},
		{b.limitsOf(t, "free", "192.0.2.1", "t1", "tv"), "", -1},
	} {
		if got := c.v.LimitWords(); got != c.want || c.v.Limit != c.told {
			t.Errorf("limits %q, told %d, want %q, %d", got, c.v.Limit, c.want, c.told)
		}
	}
	if cut := home.More[2].Cut; cut != 30*time.Second {
		t.Errorf("a soft limit is cut after %s, want 30s", cut)
	}
	if !slices.Contains(strings.Split(others, ";"), "at most 2 seats of this device, evict_oldest") {
		t.Fatal("the words of the test are wrong")
	}
}

// keys are under which keys a viewer's seat counts.
func keys(v decide.Verdict) string { return fmt.Sprint(v.Counted) }

func TestASeatCountsForLimitsOfOtherRules(t *testing.T) {
	t.Parallel()
	b := newBench(t, limitsPolicy)
	b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17"}})
	sport, other := b.limitsOf(t, "sport", "192.0.2.1", "t1", "tv"), b.limitsOf(t, "other", "192.0.2.1", "t2", "tv")
	if len(sport.Counted) != 3 || len(other.Counted) != 2 || !slices.Equal(sport.Counted[:2], other.Counted) {
		t.Errorf("counted by %v and %v, want the same device and address, and the rule", sport.Counted, other.Counted)
	}
	if again := b.limitsOf(t, "other", "192.0.2.1", "t2", "box"); again.Counted[0] == other.Counted[0] || again.Counted[1] != other.Counted[1] {
		t.Error("another device of the same address is not counted so")
	}
	b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "18"}})
	if his := b.limitsOf(t, "other", "192.0.2.1", "t3", "tv"); his.Counted[0] == other.Counted[0] {
		t.Error("a device of the same name of another user counts as one")
	}
	one, two := b.limitsOf(t, "free", "2001:db8::1", "", "tv"), b.limitsOf(t, "free", "2001:db8::ffff:2", "", "tv")
	if keys(one) != keys(two) {
		t.Error("two addresses of one /64 are two lines")
	}
	if three := b.limitsOf(t, "free", "2001:db8:0:1::1", "", "tv"); keys(three) == keys(one) {
		t.Error("two lines count as one")
	}
}

// A policy with limits by user alone gives seats no more keys.
func TestOneLimitCostsNoKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t, "version: 1\nnodes: {web: {caller: nginx, from: [127.0.0.1]}}\nstreams: [{match: '**', auth: allow, limit: {sessions: 2}}]\n")
	if v := b.limitsOf(t, "a", "192.0.2.1", "t", "tv"); len(v.Counted)+len(v.More) != 0 || v.Limit != 2 {
		t.Errorf("verdict = %+v", v)
	}
}

func TestAnOrderedLimitReplacesTheAccountsAlone(t *testing.T) {
	t.Parallel()
	set := directive.NewSet(override(directive.Limit, func(d *directive.Directive) { d.Realm, d.User, d.Limit = "main", "17", 6 }))
	b := newBenchWith(t, limitsPolicy, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	b.upstream.Set("a.example", decidetest.Backend{Status: 200, Headers: map[string]string{"X-UserId": "17"}})
	v := b.limitsOf(t, "sport", "203.0.113.1", "t1", "tv")
	if v.Limit != 6 || len(v.More) != 3 || v.More[0].By != "device" {
		t.Errorf("limits %q, want 6 seats and those by device, address and rule", v.LimitWords())
	}
}
