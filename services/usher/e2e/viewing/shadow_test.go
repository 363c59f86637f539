package viewing_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"usher.internal/libs/pgstore"
)

// shadowPolicy tries out a portal's new rules beside the backend that the operator runs today.
const shadowPolicy = `
version: 1
defaults: {lease: 120s, idle: 60s}
nodes:
  trial: {caller: astra, from: [127.0.0.1], budget: 3s, enforce: @ENFORCE@, answer: today}
  open: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", enforce: off}
checks:
  today: {type: http, url: "@BACKEND@/check", timeout: 1s}
streams:
  - {match: "premium/*", auth: deny}
  - {match: "**", auth: today, limit: {sessions: 1, max: 1, mode: refuse}}
`

func shadowAt(b *backend, enforce string) string {
	return strings.NewReplacer("@BACKEND@", b.URL, "@ENFORCE@", enforce).Replace(shadowPolicy)
}

// TestShadow plays a trial: while it lasts every viewer gets what the old backend says, and the
// report shows what would have been; then the policy is enforced for everybody.
func TestShadow(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := setup(t, shape{edges: 2, workers: 2, policy: shadowAt(b, "off")})

	// Three boxes of one account, of which the policy would let one play: nobody notices.
	for i := range 3 {
		v := viewer{node: "trial", stream: "news", token: "for-4711", ip: "203.0.113.7", agent: fmt.Sprint("box", i), session: fmt.Sprint(100 + i)}
		a := c.do(v.astra(c.edges[i%2]))
		if a.status != http.StatusOK || a.header.Get("X-Session-Name") != "Mr 4711" {
			t.Fatalf("box %d in the trial: %s, name %q; want the old backend's yes with its name", i, a, a.header.Get("X-Session-Name"))
		}
	}
	// Whom the policy refuses and the backend lets in; whom the backend refuses, with its address.
	premium := viewer{node: "trial", stream: "premium/one", token: "for-4711", ip: "203.0.113.7", agent: "box9", session: "200"}
	c.want("premium", c.do(premium.astra(c.edges[0])), http.StatusOK, "")
	refused := c.do(viewer{node: "trial", stream: "news", token: "nobody", ip: "203.0.113.9", agent: "box", session: "300"}.astra(c.edges[1]))
	if refused.status != http.StatusForbidden || refused.header.Get("X-Location") != "https://tv.example.com/pay" {
		t.Errorf("the backend refuses: %s, X-Location %q", refused, refused.header.Get("X-Location"))
	}
	// Without a backend that answers everybody is let in, also without a token.
	stranger := viewer{node: "open", stream: "premium/two", ip: "198.51.100.4", agent: "VLC"}
	stranger.stream = "premium-two"
	c.want("a stranger on an open node", c.do(stranger.nginx(c.edges[0])), http.StatusOK, "")

	playing, err := c.store.Sessions(t.Context(), pgstore.SessionFilter{Limit: 100})
	must(t, err)
	if len(playing) != 5 {
		t.Errorf("%d sessions play, want 5: three boxes, premium, and the stranger", len(playing))
	}
	rows, err := c.store.Shadow(t.Context(), c.began, 100)
	must(t, err)
	got := map[string]int64{}
	for _, r := range rows {
		got[fmt.Sprint(r.Outcome, " would ", r.Would, " ", deref(r.WouldReason))] += r.Decisions
		if r.Rule == nil || *r.Rule == "" || len(r.Examples) == 0 {
			t.Errorf("a row of the report names no rule or no example: %+v", r)
		}
	}
	for what, want := range map[string]int64{
		"allow would allow granted":       1, // the first box
		"allow would deny limit":          2,
		"allow would deny deny_rule":      1,
		"redirect would redirect refused": 1,
		"allow would redirect refused":    1, // the stranger, whom the backend does not know
	} {
		if got[what] != want {
			t.Errorf("%d answers %q in the report, want %d: %v", got[what], what, want, got)
		}
	}

	// The trial is over: the limit holds for who comes from now on.
	c.enforce(shadowAt(b, "on"))
	premium.token, premium.session = "for-9", "400"
	c.want("premium, enforced", c.do(premium.astra(c.edges[0])), http.StatusForbidden, "deny_rule")
	next := viewer{node: "trial", stream: "news", token: "for-77", ip: "203.0.113.7", agent: "a", session: "500"}
	c.want("the first box of an account", c.do(next.astra(c.edges[0])), http.StatusOK, "")
	next.agent, next.session = "b", "501"
	c.want("the second", c.do(next.astra(c.edges[1])), http.StatusForbidden, "limit")
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
