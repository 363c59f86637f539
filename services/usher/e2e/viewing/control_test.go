package viewing_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit/streamer"
)

// controlPolicy has an Astra and a Flussonic whose sessions the first edge asks for every 2 s. hold is
// shorter than the test: who keeps a seat keeps it by the list.
const controlPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], edge: edge1, budget: 10s, hold: 6s, control: {url: "@ASTRA@", user: admin, password: "@SECRET@", poll: 2s}}
  fl1: {caller: flussonic, from: [127.0.0.1], edge: edge1, budget: 10s, control: {url: "@FLUSSONIC@", user: admin, password: "@SECRET@", poll: 2s}}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "**", auth: site, limit: {sessions: 1, by: user, mode: evict_oldest}}
`

// nodeServer is a streaming server that plays viewers.
type nodeServer interface {
	Connect(v streamer.Viewer) (*streamer.Conn, streamer.Answer)
	Playing() []streamer.Play
	Calls() []string
	Cut(on bool)
}

// connects is a viewer who is let in and plays over a connection that lasts.
func (c *cluster) connects(m nodeServer, user, agent string) *streamer.Conn {
	c.t.Helper()
	ip := map[string]string{"TV": "203.0.113.9", "Phone": "198.51.100.7"}[agent] // to a Flussonic the address makes the viewer
	conn, a := m.Connect(streamer.Viewer{Stream: "news", Token: c.sign("news", user), IP: ip, UserAgent: agent})
	if a.Status != http.StatusOK {
		c.t.Fatalf("%s with %s: status %d, want 200", user, agent, a.Status)
	}
	return conn
}

// TestANodeIsToldAndTells: what is ended by force ends at the node within a second, who leaves gives
// his seat back by the node's list, and who stays keeps it however long his node does not ask.
func TestANodeIsToldAndTells(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: endPolicy})
	astra := streamer.NewAstra(t, streamer.Options{Backend: c.edges[0] + "/v1/astra/astra1/check", User: "admin", Password: secret})
	flussonic := streamer.NewFlussonic(t, streamer.Options{Backend: c.edges[0] + "/v1/flussonic/fl1", User: "admin", Password: secret})
	revision := c.apply(strings.NewReplacer("@ASTRA@", astra.URL, "@FLUSSONIC@", flussonic.URL).Replace(controlPolicy))
	c.eventually(patience, "the policy is in force", func() bool { return c.inForce(revision) })
	var both sync.WaitGroup
	for name, m := range map[string]nodeServer{"astra": astra, "flussonic": flussonic} {
		both.Go(func() {
			stays := c.connects(m, name+"-stays", "TV")
			since := time.Now()
			c.ended(name, m)
			c.leaves(name, m)
			c.eventually(patience, "longer than hold", func() bool { return time.Since(since) > 8*time.Second })
			if seats := c.live(pgstore.SessionFilter{User: name + "-stays"}); !stays.Lasts() || len(seats) != 1 {
				t.Errorf("%s: who stays has the seats %v", name, seats)
			}
		})
	}
	both.Wait()
	c.noticed(astra)
	if c.logs.says(secret) {
		t.Error("the password of the control API is in the log")
	}
}

// ended ends viewers by force, in each way, and measures how soon their node has ended them.
func (c *cluster) ended(name string, m nodeServer) {
	var took []time.Duration
	for round := range 3 {
		for how, end := range map[string]func(user string){
			"kill": func(user string) {
				for _, s := range c.live(pgstore.SessionFilter{User: user}) {
					_, err := c.store.KillSession(c.t.Context(), s.ID, time.Minute)
					must(c.t, err)
				}
			},
			"ban":   func(user string) { c.orders(directive.Ban, directive.Deny, ofUser(user)) },
			"evict": func(user string) { c.connects(m, user, "Phone") },
		} {
			user := fmt.Sprint(name, how, round)
			conn := c.connects(m, user, "TV")
			begin := time.Now()
			end(user)
			c.eventually(patience, name+": "+how+" ends him at the node", func() bool { return !conn.Lasts() })
			took = append(took, time.Since(begin))
		}
	}
	promptly(c.t, name+": ends at the node", everywhere, took)
}

// leaves has a viewer leave, whose caller says nothing of it.
func (c *cluster) leaves(name string, m nodeServer) {
	user := name + "-leaves"
	conn := c.connects(m, user, "TV")
	c.eventually(patience, "a list shows him", func() bool {
		return len(c.live(pgstore.SessionFilter{User: user})) == 1 && len(m.Calls()) > 3
	})
	before := len(m.Calls())
	c.eventually(patience, "one more list", func() bool { return len(m.Calls()) > before+1 })
	conn.Close()
	begin := time.Now()
	c.eventually(patience, name+": his seat is free", func() bool { return len(c.live(pgstore.SessionFilter{User: user})) == 0 })
	promptly(c.t, name+": a seat is free again", 5*time.Second, []time.Duration{time.Since(begin)})
}

// noticed has an Astra let somebody in while it can reach nobody.
func (c *cluster) noticed(astra *streamer.Astra) {
	gauge := func() float64 { return c.metric(c.edgeMetrics[0], telemetry.EdgeUnaskedSessions().Name) }
	if n := gauge(); n != 0 {
		c.t.Errorf("%v sessions never asked, want none yet", n)
	}
	astra.Cut(true)
	conn := c.connects(astra, "nobody-asked", "TV")
	astra.Cut(false)
	c.eventually(patience, "he is noticed", func() bool { return gauge() == 1 })
	conn.Close()
	c.eventually(patience, "he is gone", func() bool { return gauge() == 0 })
	if !c.logs.says("without ever having asked") {
		c.t.Error("the log does not tell of him")
	}
}
