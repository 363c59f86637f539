package viewing_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/pgstore"
)

const outagePolicy = `
version: 1
defaults: {lease: 1500ms, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 5s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 5s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "closed", auth: site, on_unavailable: deny, limit: {sessions: 2, mode: refuse}}
  - {match: "**", auth: site, limit: {sessions: 2, mode: refuse}}
`

const (
	// outage is longer than the leases, so that running sessions are decided without the ledger.
	outage = 4 * time.Second
	// noticed is how soon the return of Postgres is.
	noticed = 2 * time.Second
)

// book is what was answered, by decision.
type book map[uuid.UUID]answer

func (b book) note(a answer) answer {
	b[a.decision] = a
	return a
}

func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: outagePolicy})
	known, alsoKnown := c.viewerOf("known", "news", "TV"), c.viewerOf("also-known", "closed", "TV")
	c.playsOn(known, c.edges[0])
	c.playsOn(alsoKnown, c.edges[1])
	before := c.live(pgstore.SessionFilter{User: "known"})[0]
	stored := len(c.rows(pgstore.DecisionFilter{}))

	c.gate.Shut()
	answered := book{}
	greedy := c.strangersDuringOutage(answered)
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for begin := time.Now(); time.Since(begin) < outage; <-pace.C {
		c.want("the known viewer goes on", answered.note(c.do(known.segment(c.edges[0]))), http.StatusOK, "")
		c.want("the known viewer of a strict rule goes on", answered.note(c.do(alsoKnown.segment(c.edges[1]))), http.StatusOK, "")
		for _, v := range greedy {
			c.want("a viewer who was let in uncounted goes on", answered.note(c.do(v.segment(c.edges[0]))), http.StatusOK, "")
		}
	}
	if got := len(c.rows(pgstore.DecisionFilter{})); got != stored {
		t.Fatalf("%d rows were stored while Postgres was away", got-stored)
	}

	c.gate.Open()
	back := time.Now()
	n := 0
	c.eventually(patience, "new viewers are counted again", func() bool {
		n++
		return c.do(c.viewerOf("new", "news", fmt.Sprint("player ", n)).nginx(c.edges[0])).reason == "limit"
	})
	if after := time.Since(back); after > 2*noticed { // the machine does other things too
		t.Errorf("the return of Postgres was noticed after %v, want %v", after, noticed)
	}
	c.recorded(answered, stored)
	c.counted(greedy)
	after := c.live(pgstore.SessionFilter{User: "known"})
	if len(after) != 1 || after[0].ID != before.ID {
		t.Errorf("sessions of the known viewer: %+v, want still %s", after, before.ID)
	}
	c.recorded(answered, stored) // still once each
}

// strangersDuringOutage come while nobody can count them. It returns the three devices of one
// user, one more than his limit.
func (c *cluster) strangersDuringOutage(answered book) (greedy []viewer) {
	for _, agent := range []string{"one", "two", "three"} {
		v := c.viewerOf("greedy", "news", agent)
		c.want("a stranger", answered.note(c.do(v.nginx(c.edges[0]))), http.StatusOK, "")
		greedy = append(greedy, v)
	}
	box := viewer{node: "astra1", stream: "news", token: c.sign("news", "box"), ip: "203.0.113.8", session: "1"}
	c.want("a stranger through astra", answered.note(c.do(box.astra(c.edges[1]))), http.StatusOK, "")
	c.want("a stranger where the rule denies", answered.note(c.do(c.viewerOf("greedy", "closed", "four").nginx(c.edges[1]))),
		http.StatusForbidden, "unavailable")
	forged := c.viewerOf("greedy", "news", "five")
	forged.token += "x"
	c.want("a forged token", answered.note(c.do(forged.nginx(c.edges[0]))), http.StatusForbidden, "bad_token")
	return greedy
}

// recorded waits until every answer of the outage has its row, and holds the rows against them.
func (c *cluster) recorded(answered book, stored int) {
	c.t.Helper()
	var rows map[uuid.UUID]pgstore.DecisionRow
	c.eventually(patience, "every answer of the outage has its row", func() bool {
		rows = byID(c.t, c.rows(pgstore.DecisionFilter{}))
		for id := range answered {
			if _, ok := rows[id]; !ok {
				return false
			}
		}
		return true
	})
	if len(rows) < stored {
		c.t.Errorf("there were %d rows before the outage, now %d", stored, len(rows))
	}
	uncounted := 0
	for id, a := range answered {
		row, want := rows[id], map[int]string{200: "allow", 403: "deny"}[a.status]
		if row.Outcome != want || a.reason != "" && row.Reason != a.reason {
			c.t.Errorf("the answer %v stands as %s %s", a, row.Outcome, row.Reason)
		}
		if row.Reason == "uncounted" {
			uncounted++
		}
	}
	// Three devices and an Astra; known viewers were decided again at least once each.
	if uncounted < 6 {
		c.t.Errorf("%d answers were uncounted, want those of 4 strangers and re-decisions", uncounted)
	}
}

// counted has all devices play on until each is counted or refused: none may have a seat too many.
func (c *cluster) counted(devices []viewer) {
	c.t.Helper()
	const limit = 2
	last := make([]int, len(devices))
	c.eventually(patience, "who came in uncounted is counted", func() bool {
		for i, v := range devices {
			last[i] = c.do(v.nginx(c.edges[0])).status
		}
		return len(c.live(pgstore.SessionFilter{User: "greedy"})) == limit && count(last, http.StatusForbidden) == len(devices)-limit
	})
	if playing := count(last, http.StatusOK); playing != limit {
		c.t.Errorf("%d devices play on, want %d", playing, limit)
	}
}

func count(all []int, what int) (n int) {
	for _, v := range all {
		if v == what {
			n++
		}
	}
	return n
}
