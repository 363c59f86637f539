package viewing_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/testkit/portal"
)

const grantsPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 1s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 10s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  portal: {type: ministra, url: "@PORTAL@/stalker_portal", timeout: 3s, realm: tv}
streams:
  - {match: "**", auth: portal}
`

// A Ministra's token lives five seconds; its yes is known to every worker, also to one that was
// not there when it was given (spec astra §2.2 and §10, vectors 39 and 43).
func TestAMinistrasYesIsKeptForAll(t *testing.T) {
	t.Parallel()
	m := portal.NewMinistra(t)
	c := setup(t, shape{edges: 3, workers: 3, policy: strings.ReplaceAll(grantsPolicy, "@PORTAL@", m.URL)})
	token := m.Link("1234")
	var storm []*http.Request
	for i := range 200 {
		v := viewer{node: "astra1", stream: "news", token: token, ip: "203.0.113.9", agent: "Box", session: "1001"}
		storm = append(storm, v.astra(c.edges[i%len(c.edges)]))
	}
	for _, a := range c.together(storm) {
		c.want("one of 200 equal questions", a, http.StatusOK, "")
		if got := a.header.Get("X-Session-Name"); got != "1234" {
			t.Errorf("X-Session-Name = %q, want 1234", got)
		}
	}
	asked := len(m.Asked())
	if asked < 1 || asked > 3 {
		t.Errorf("the portal was asked %d times, want once a worker at most", asked)
	}
	// Long after the token's life, at every edge and as many times as it takes to reach every worker.
	m.Advance(time.Minute)
	n := 0
	again := func(stream, ip string) answer {
		n++
		v := viewer{node: "astra1", stream: stream, token: token, ip: ip, agent: fmt.Sprint("Box ", n), session: fmt.Sprint(2000 + n)}
		return c.do(v.astra(c.edges[n%len(c.edges)]))
	}
	for range 30 {
		c.want("a new session with the same token", again("news", "203.0.113.9"), http.StatusOK, "")
	}
	if got := len(m.Asked()); got != asked {
		t.Errorf("the portal was asked %d times more about a grant that holds", got-asked)
	}
	c.want("another stream", again("sport", "203.0.113.9"), http.StatusForbidden, "refused")
	c.want("another address", again("news", "203.0.113.10"), http.StatusForbidden, "refused")
	if got := len(m.Asked()); got != asked+2 {
		t.Errorf("the portal was asked %d times about another stream and address, want twice", got-asked)
	}
	// A worker that was started later finds it in Postgres, also while the portal is down.
	m.Break(portal.Fail)
	c.run("late worker", c.worker("worker9")...)
	c.eventually(patience, "the late worker has the policy", func() bool { return c.inForce(1) })
	late := c.workerMetrics[len(c.workerMetrics)-1]
	c.eventually(patience, "the late worker answers", func() bool {
		c.want("by any worker", again("news", "203.0.113.9"), http.StatusOK, "")
		return c.metric(late, "usher_worker_answers_total") > 0
	})
	// His account is blocked: nobody believes the grant a second later.
	_, err := c.store.RevokeGrants(t.Context(), "tv", "1234")
	must(t, err)
	<-time.After(time.Second)
	m.Break(portal.None)
	for range 12 {
		c.want("after the revocation", again("news", "203.0.113.9"), http.StatusForbidden, "refused")
	}
}

// A running session that comes from another address takes its grant along.
func TestAGrantMovesWithTheRunningSession(t *testing.T) {
	t.Parallel()
	m := portal.NewMinistra(t)
	c := setup(t, shape{edges: 1, workers: 2, policy: strings.ReplaceAll(grantsPolicy, "@PORTAL@", m.URL)})
	v := viewer{node: "web1", stream: "news", token: m.Link("7"), ip: "2001:db8::9", agent: "Box"}
	c.want("the first question", c.do(v.nginx(c.edges[0])), http.StatusOK, "")
	m.Advance(time.Minute)
	v.ip = "2001:db8::77" // a privacy address of the same network: one device still
	begin := time.Now()
	for time.Since(begin) < 3*time.Second { // over several leases
		c.want("at its new address", c.do(v.nginx(c.edges[0])), http.StatusOK, "")
	}
	if n := len(m.Asked()); n != 1 {
		t.Errorf("the portal was asked %d times, want once", n)
	}
}

const brandsPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  brand_a: {type: ministra, url: "@A@/stalker_portal", timeout: 3s, realm: a, for: {host: ["*.brand-a.example"]}}
  brand_b: {type: ministra, url: "@B@/stalker_portal", timeout: 3s, realm: b, for: {host: ["tv.brand-b.example"], token: "[0-9a-f]{32}"}}
streams:
  - {match: "**", auth: {any: [brand_a, brand_b]}}
`

// The tokens of one brand never reach the other's portal, whatever is asked.
func TestABrandsTokensStayWithIt(t *testing.T) {
	t.Parallel()
	a, b := portal.NewMinistra(t), portal.NewMinistra(t)
	c := setup(t, shape{edges: 1, workers: 2, policy: strings.NewReplacer("@A@", a.URL, "@B@", b.URL).Replace(brandsPolicy)})
	n := 0
	ask := func(host, token string) answer {
		n++
		v := viewer{node: "web1", stream: fmt.Sprint("s", n), token: token, ip: "203.0.113.9", agent: "Box"}
		r := v.nginx(c.edges[0])
		r.Host = host
		return c.do(r)
	}
	ofA, ofB := a.Link("17"), b.Link("17")
	c.want("brand A", ask("tv.brand-a.example", ofA), http.StatusOK, "")
	c.want("brand B", ask("tv.brand-b.example:8080", ofB), http.StatusOK, "")
	c.want("A's token at B's host", ask("tv.brand-b.example", ofA), http.StatusForbidden, "refused")
	c.want("B's token at A's host", ask("tv.brand-a.example", ofB), http.StatusForbidden, "refused")
	c.want("a token of another form", ask("tv.brand-b.example", "17"), http.StatusForbidden, "bad_token")
	c.want("nobody's host", ask("tv.example", ofA), http.StatusForbidden, "bad_token")
	c.want("nobody's host and no token", ask("tv.example", ""), http.StatusForbidden, "no_token")
	if na, nb := len(a.Asked()), len(b.Asked()); na != 2 || nb != 2 {
		t.Errorf("A was asked %d times and B %d, want 2 and 2: what came to its own host", na, nb)
	}
	users := map[string]bool{}
	for _, s := range c.live(pgstore.SessionFilter{User: "17"}) {
		users[s.Realm] = true
	}
	if !users["a"] || !users["b"] {
		t.Errorf("user 17 plays in the realms %v, want two people in a and b", users)
	}
}

// What each check of a rule is while its backend hangs, as usher checks status shows it.
func TestTheOperatorSeesWhatIsDown(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := setup(t, shape{edges: 1, workers: 2, policy: strings.ReplaceAll(upstreamPolicy, "@BACKEND@", b.URL)})
	s := &subscriber{c: c}
	every := func(state string) func() bool {
		return func() bool {
			s.ask("closed", fmt.Sprint("for-", s.session), "Box")
			all, err := c.store.Checks(context.Background(), 100)
			must(t, err)
			n := 0
			for _, row := range all {
				if row.Check == "billing" && row.State == state && !row.Stale {
					n++
				}
			}
			return n == 2
		}
	}
	c.eventually(patience, "both workers say that it is up", every("up"))
	b.hang()
	c.eventually(patience, "both workers say that it is open", every("open"))
	all, err := c.store.Checks(t.Context(), 100)
	must(t, err)
	for _, row := range all {
		if row.Check == "billing" && (row.Type != "http" || row.Yes == 0 || row.Unavailable < 3 || row.LastOK == nil || !strings.Contains(row.LastError, "did not answer in time")) {
			t.Errorf("the row is %+v", row)
		}
	}
	if !c.logs.says("check does not answer, its fail mode decides") {
		t.Error("no line says that the check does not answer")
	}
	b.recover()
	c.eventually(patience, "both workers say that it is up again", every("up"))
	if !c.logs.says("check answers again") {
		t.Error("no line says that the check answers again")
	}
}
