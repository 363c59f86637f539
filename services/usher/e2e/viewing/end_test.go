package viewing_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
)

const endPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 10s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "strict-*", auth: site, limit: {sessions: 1, by: user, mode: refuse}}
  - {match: "one-*", auth: site, limit: {sessions: 1, by: user, mode: evict_oldest}}
  - {match: "**", auth: site, limit: {sessions: 2, by: user, mode: evict_oldest}}
`

// everywhere is how soon all edges refuse a session that was ended by force.
const everywhere = time.Second

// viewerOf is a viewer at the nginx node with a device of his own.
func (c *cluster) viewerOf(user, stream, agent string) viewer {
	return viewer{node: "web1", stream: stream, token: c.sign(stream, user), ip: "203.0.113.9", agent: agent}
}

// segment is the viewer's request for a segment, which has no token.
func (v viewer) segment(base string) *http.Request {
	v.token, v.file = "", "720p/seg1.ts"
	return v.nginx(base)
}

// playsOn lets the viewer play at an edge, both by token and by segments.
func (c *cluster) playsOn(v viewer, edges ...string) {
	c.t.Helper()
	for _, edge := range edges {
		c.want(v.agent+" opens", c.do(v.nginx(edge)), http.StatusOK, "")
		c.want(v.agent+" goes on", c.do(v.segment(edge)), http.StatusOK, "")
	}
}

// gone waits until an edge refuses the viewer, for good, and returns how long after his end the
// last answer was asked for that still let him play.
func (c *cluster) gone(v viewer, edge int, ended time.Time, reason string) (took time.Duration) {
	c.t.Helper()
	c.eventually(patience, v.agent+" is refused", func() bool {
		asked := time.Now()
		a := c.do(v.nginx(c.edges[edge]))
		if a.status == http.StatusForbidden {
			c.want(v.agent, a, http.StatusForbidden, reason)
			return true
		}
		took = asked.Sub(ended)
		return false
	})
	for range 5 {
		c.want(v.agent+", by token", c.do(v.nginx(c.edges[edge])), http.StatusForbidden, reason)
		c.want(v.agent+", by segment", c.do(v.segment(c.edges[edge])), http.StatusForbidden, "")
	}
	return took
}

func TestTheOldestMakesRoom(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 2, policy: endPolicy})
	var took []time.Duration
	for round := range 5 {
		user := fmt.Sprint("user", round)
		tv, phone, tablet := c.viewerOf(user, "news", "TV"), c.viewerOf(user, "news", "Phone"), c.viewerOf(user, "news", "Tablet")
		c.playsOn(tv, c.edges[0], c.edges[1])
		c.playsOn(phone, c.edges[1])
		c.playsOn(tablet, c.edges[2])
		ended := time.Now()
		for edge := range c.edges {
			took = append(took, c.gone(tv, edge, ended, "evicted"))
		}
		// Whoever has a seat goes on, and whoever lost his cannot get it back by asking.
		c.playsOn(phone, c.edges[1])
		c.playsOn(tablet, c.edges[2])
		if seats := c.live(pgstore.SessionFilter{User: user}); len(seats) != 2 {
			t.Errorf("%s holds %d seats, want 2", user, len(seats))
		}
	}
	promptly(t, "an eviction on every edge", everywhere, took)
}

func TestKilledEverywhere(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 2, policy: endPolicy})
	var took []time.Duration
	for round := range 5 {
		user := fmt.Sprint("user", round)
		tv, phone := c.viewerOf(user, "news", "TV"), c.viewerOf(user, "news", "Phone")
		c.playsOn(tv, c.edges...)
		c.playsOn(phone, c.edges...)
		box := viewer{node: "astra1", stream: "sport", token: c.sign("sport", "box"+user), ip: "203.0.113.8", session: user}
		c.want("astra", c.do(box.astra(c.edges[0])), http.StatusOK, "")
		for _, s := range c.live(pgstore.SessionFilter{}) {
			if s.UserAgent == "TV" || s.Node == "astra1" {
				// What `usher sessions kill` does: workers do not take part in it.
				killed, err := c.store.KillSession(t.Context(), s.ID, time.Minute)
				must(t, err)
				if killed == nil {
					t.Fatalf("session %s of %s was not live", s.ID, *s.User)
				}
			}
		}
		ended := time.Now()
		for edge := range c.edges {
			took = append(took, c.gone(tv, edge, ended, "killed"))
			c.want("astra asks again", c.do(box.astra(c.edges[edge])), http.StatusForbidden, "killed")
		}
		c.playsOn(phone, c.edges...)
		c.eventually(patience, "the outbox forgets what was told", func() bool {
			left, err := c.store.Outbox(t.Context(), 0, 100)
			return err == nil && len(left) == 0
		})
	}
	promptly(t, "a kill on every edge", everywhere, took)
}
