package viewing_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
)

const askedAtOnce = 200

func TestOneSessionAskedManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 4, policy: strictPolicy})
	for name, ask := range map[string]func(v viewer, base string) *http.Request{
		"astra": viewer.astra,
		"nginx": viewer.nginx,
	} {
		for round := range 5 {
			user := fmt.Sprintf("%s%d", name, round)
			v := viewer{
				node: map[string]string{"astra": "astra1", "nginx": "web1"}[name], stream: "news",
				token: c.sign("news", user), ip: "203.0.113.9", agent: "VLC", session: user,
			}
			questions := make([]*http.Request, askedAtOnce)
			for i := range questions {
				questions[i] = ask(v, c.edges[i%len(c.edges)])
			}
			decisions := map[uuid.UUID]int{}
			for _, a := range c.together(questions) {
				c.want(user, a, http.StatusOK, "")
				decisions[a.decision]++
			}
			rows, seats := c.rows(pgstore.DecisionFilter{User: user}), c.live(pgstore.SessionFilter{User: user})
			if len(decisions) != 1 || len(rows) != 1 || len(seats) != 1 {
				t.Errorf("%s: %d ids were answered, %d rows stored, %d sessions opened, want one of each",
					user, len(decisions), len(rows), len(seats))
				continue
			}
			if decisions[rows[0].ID] != askedAtOnce || seats[0].Decision != rows[0].ID || *rows[0].Session != seats[0].ID {
				t.Errorf("%s: answered %v, row %s, session %s of decision %s: want the same everywhere",
					user, decisions, rows[0].ID, seats[0].ID, seats[0].Decision)
			}
		}
	}
}

// stranger is what somebody asks under the number that Astra gave another viewer before, as after
// a restart of Astra, or as somebody who guessed it.
type stranger struct {
	// change makes him out of alice, whose user id is alice.
	change func(c *cluster, v *viewer, alice string)
	status int
	reason string
	// session that is live under the number afterwards: whose it is and on which stream.
	isHers bool
	stream string
}

var strangers = map[string]stranger{
	"with another user's token": {func(c *cluster, v *viewer, alice string) {
		v.token = c.sign("news", "not-"+alice)
	}, 200, "", false, "news"},
	"on another device":  {func(_ *cluster, v *viewer, _ string) { v.agent = "Kodi" }, 200, "", true, "news"},
	"at another address": {func(_ *cluster, v *viewer, _ string) { v.ip = "198.51.100.7" }, 200, "", true, "news"},
	"on another stream": {func(c *cluster, v *viewer, alice string) {
		v.stream, v.token = "sport", c.sign("sport", alice)
	}, 200, "", true, "sport"},
	"with a forged token": {func(_ *cluster, v *viewer, _ string) { v.token += "x" }, 403, "bad_token", false, ""},
	"with her token, on another stream": {func(_ *cluster, v *viewer, _ string) {
		v.stream = "sport"
	}, 403, "bad_token", false, ""},
	"with no token, another device": {func(_ *cluster, v *viewer, _ string) {
		v.token, v.agent = "", "Kodi"
	}, 403, "no_token", false, ""},
	"with no token, another stream": {func(_ *cluster, v *viewer, _ string) {
		v.token, v.stream = "", "sport"
	}, 403, "no_token", false, ""},
}

func TestACallersIDIsNoTicket(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: strictPolicy})
	n := 0
	for name, s := range strangers {
		for where, other := range map[string]int{"on the same edge": 0, "on another edge": 1} {
			n++
			c.estrange("a stranger "+name+" "+where, s, fmt.Sprint("alice", n), c.edges[other])
		}
	}
}

// estrange lets alice open, then a stranger come under her number at an edge, then her go on.
func (c *cluster) estrange(what string, s stranger, alice, edge string) {
	c.t.Helper()
	v := viewer{
		node: "astra1", stream: "news", ip: "203.0.113.9", agent: "VLC", token: c.sign("news", alice), session: "number of " + alice,
	}
	first := c.do(v.astra(c.edges[0]))
	c.want(what+": alice before him", first, http.StatusOK, "")
	hers := c.session(first.decision)
	his := v
	s.change(c, &his, alice)
	got := c.do(his.astra(edge))
	c.want(what, got, s.status, s.reason)
	if got.decision == first.decision {
		c.t.Errorf("%s was answered with alice's decision", what)
	}
	if s.status == http.StatusOK {
		c.estranged(what, s, hers, c.session(got.decision))
	}
	// She herself is judged anew, wherever her number has been meanwhile: at once where it was taken
	// at her own edge, else as soon as that has heard of it.
	c.eventually(time.Second, what+": alice goes on with a session of her own", func() bool {
		again := c.do(v.astra(c.edges[0]))
		c.want(what+": alice after him", again, http.StatusOK, "")
		session := c.session(again.decision)
		return *session.User == alice && session.ClosedAt == nil
	})
}

// estranged looks at who holds which seat after a stranger was let in under a number.
func (c *cluster) estranged(what string, s stranger, hers, his pgstore.SessionRow) {
	c.t.Helper()
	if his.ID == hers.ID {
		c.t.Errorf("%s got alice's seat", what)
	}
	if isHers := *his.User == *hers.User; isHers != s.isHers || his.Stream != s.stream {
		c.t.Errorf("%s plays %s as %s", what, his.Stream, *his.User)
	}
	now, err := c.store.Session(c.t.Context(), hers.ID)
	must(c.t, err)
	if now.CloseReason == nil || *now.CloseReason != string(access.CloseIDReused) {
		c.t.Errorf("%s: alice's session ended as %v, want id_reused", what, now.CloseReason)
	}
}

// session is the one that a decision opened or stands for.
func (c *cluster) session(decision uuid.UUID) pgstore.SessionRow {
	c.t.Helper()
	row, err := c.store.Decision(c.t.Context(), decision)
	must(c.t, err)
	if row == nil || row.Session == nil {
		c.t.Fatalf("decision %s has no row with a session: %v", decision, row)
	}
	session, err := c.store.Session(c.t.Context(), *row.Session)
	must(c.t, err)
	if session == nil {
		c.t.Fatalf("session %s is not known", *row.Session)
	}
	return *session
}
