package edge

import (
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// Where conditions stand before a stream's rule, an edge does what every rule that may be the
// stream's would allow it to do.
func TestConditionalRulesAreJoined(t *testing.T) {
	t.Parallel()
	stream := func(match string, conditional bool, mode string, grace time.Duration, upstream, tokenless bool, onDeny int32) *usherv1.StreamView {
		return &usherv1.StreamView{
			Match: match, Conditional: conditional, OnUnavailable: mode, GraceMs: grace.Milliseconds(),
			Upstream: upstream, Tokenless: tokenless, OnDeny: onDeny,
		}
	}
	v, err := compile(&usherv1.Projection{
		OnDeny: []*usherv1.DenyView{{Addresses: map[string]string{"*": "https://a/"}}, {Addresses: map[string]string{"*": "https://b/"}}},
		Streams: []*usherv1.StreamView{
			stream("a/*", true, "allow", time.Hour, false, false, 1),
			stream("a/*", true, "grace", 2*time.Hour, true, false, 1),
			stream("a/*", false, "allow", 3*time.Hour, false, false, 1),
			stream("a/*", false, "deny", time.Minute, false, true, 2), // never reached
			stream("b/*", true, "allow", time.Hour, false, false, 2),
			stream("c/*", true, "deny", time.Hour, false, false, 0),
			stream("d/*", true, "allow", time.Hour, false, false, 1),
			stream("d/*", false, "allow", time.Hour, false, false, 2),
			stream("c/*", false, "allow", 2*time.Hour, false, true, 0),
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]rule{
		"a/x": {fail: access.FailGrace, grace: time.Hour, upstream: true, onDeny: map[string]string{"*": "https://a/"}},
		"b/x": {fail: access.FailGrace, grace: time.Hour, tokenless: true, onDeny: map[string]string{"*": "https://b/"}},
		"c/x": {fail: access.FailDeny, grace: time.Hour, tokenless: true},
		"d/x": {fail: access.FailAllow, grace: time.Hour},
		"e/x": {fail: access.FailDeny, tokenless: true},
	} {
		got := v.rule(name)
		if got.fail != want.fail || got.grace != want.grace || got.upstream != want.upstream || got.tokenless != want.tokenless ||
			got.conditional || len(got.onDeny) != len(want.onDeny) || got.onDeny["*"] != want.onDeny["*"] {
			t.Errorf("rule(%s) = %+v, want %+v", name, got, &want)
		}
	}
	if first := v.rules[0]; first.fail != access.FailAllow || !first.conditional {
		t.Errorf("joining changed a rule: %+v", first)
	}
}
