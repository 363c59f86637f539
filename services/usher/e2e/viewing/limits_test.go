package viewing_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/pgstore"
)

// limitsPolicy has for sport a limit by user, one of its own and one for who is abroad.
const limitsPolicy = `
version: 1
defaults: {on_unavailable: deny}
networks: {abroad: [203.0.113.0/24]}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 15s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - match: "sport*"
    auth: site
    limit:
      - {sessions: 4, mode: refuse}
      - {sessions: 2, mode: refuse, scope: rule}
      - {sessions: 1, mode: refuse, when: 'ip in networks.abroad'}
  - match: "soft*"
    auth: site
    limit: {sessions: 1, mode: soft}
  - match: "box*"
    auth: site
    limit: [{sessions: 3, mode: refuse, by: ip}, {sessions: 4}]
  - match: "**"
    auth: site
    limit: {sessions: 4, mode: refuse}
`

// box is a device of a user at an address.
func (c *cluster) box(user, stream, ip string, n int) viewer {
	return viewer{
		node: "web1", stream: stream, token: c.sign(stream, user), ip: ip, agent: fmt.Sprintf("box/%d of %s", n, user),
	}
}

func TestListsOfLimits(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 3, policy: limitsPolicy})
	c.listUnderLoad()
	c.oneAbroad()
	c.byAddress()
	c.softly()
}

// listUnderLoad opens at once, at home, more than any of the limits: none is ever exceeded, and all that is there is given.
func (c *cluster) listUnderLoad() {
	const users, each = 8, 24
	var questions []*http.Request
	for u := range users {
		for i := range each {
			stream := []string{"sport1", "sport2", "news"}[i%3]
			v := c.box(fmt.Sprint("many", u), stream, fmt.Sprintf("198.51.100.%d", u), i)
			questions = append(questions, v.nginx(c.edges[i%len(c.edges)]))
		}
	}
	for i, a := range c.together(questions) {
		if a.status != http.StatusOK && a.status != http.StatusForbidden {
			c.t.Errorf("question %d: answered %v", i, a)
		}
	}
	for u := range users {
		sport, all := 0, c.live(pgstore.SessionFilter{User: fmt.Sprint("many", u)})
		for _, s := range all {
			if strings.HasPrefix(s.Stream, "sport") {
				sport++
			}
		}
		if len(all) != 4 || sport > 2 {
			c.t.Errorf("user %d holds %d seats, %d of sport, want 4 and at most 2", u, len(all), sport)
		}
	}
	// Where only sport is asked for, its own limit is the reason, in the words of the row.
	for i := range 2 {
		c.want("sport", c.do(c.box("fan", "sport1", "198.51.100.99", i).nginx(c.edges[0])), http.StatusOK, "")
	}
	a := c.do(c.box("fan", "sport2", "198.51.100.99", 2).nginx(c.edges[1]))
	c.want("a third of sport", a, http.StatusForbidden, "limit")
	c.says(a, `2 of 4 seats of this user, 2 of 2 seats of this user in streams[0] "sport*"`)
	c.want("news", c.do(c.box("fan", "news", "198.51.100.99", 2).nginx(c.edges[1])), http.StatusOK, "")
}

// says holds the seat's step in the row against the words.
func (c *cluster) says(a answer, words string) {
	c.t.Helper()
	row, err := c.store.Decision(c.t.Context(), a.decision)
	must(c.t, err)
	for _, s := range row.Steps {
		if s.Name == "seat" && strings.HasPrefix(s.Text, words) {
			return
		}
	}
	c.t.Errorf("the row of %v says %+v, want a seat step with %q", a, row.Steps, words)
}

// oneAbroad opens sport abroad many times at once: one is let in, as long as nobody watches at home.
func (c *cluster) oneAbroad() {
	var questions []*http.Request
	for i := range 20 {
		questions = append(questions, c.box("tourist", "sport1", fmt.Sprintf("203.0.113.%d", i), i).nginx(c.edges[i%len(c.edges)]))
	}
	answers := c.together(questions)
	c.admitted("tourist", answers, 1)
	c.audited("tourist", answers)
	c.want("at home beside him", c.do(c.box("tourist", "sport1", "198.51.100.7", 50).nginx(c.edges[0])), http.StatusOK, "")
	c.want("a second abroad", c.do(c.box("tourist", "sport1", "203.0.113.90", 51).nginx(c.edges[0])), http.StatusForbidden, "limit")
}

// byAddress has three accounts share a line: they are counted together, also by what they watch under other rules.
func (c *cluster) byAddress() {
	var questions []*http.Request
	for i := range 30 {
		questions = append(questions, c.box(fmt.Sprint("flat", i%10), "box1", "192.0.2.77", i).nginx(c.edges[i%len(c.edges)]))
	}
	seats := 0
	for _, a := range c.together(questions) {
		if a.status == http.StatusOK {
			seats++
		}
	}
	if seats != 3 {
		c.t.Errorf("%d of a line were let in, want 3", seats)
	}
	// News has no limit by address, and counts for that of the boxes.
	c.want("news", c.do(c.box("neighbour", "news", "192.0.2.78", 1).nginx(c.edges[0])), http.StatusOK, "")
	for i := range 2 {
		c.want("a box", c.do(c.box("neighbour", "box1", "192.0.2.78", i+2).nginx(c.edges[1])), http.StatusOK, "")
	}
	c.want("a third box", c.do(c.box("neighbour", "box1", "192.0.2.78", 4).nginx(c.edges[1])), http.StatusForbidden, "limit")
}

// softly lets a second box in beyond a limit of one, and a third not. When its time is over the first is cut, on its own edge too.
func (c *cluster) softly() {
	first, second := c.box("family", "soft1", "198.51.100.8", 1), c.box("family", "soft2", "198.51.100.8", 2)
	c.want("the first", c.do(first.nginx(c.edges[0])), http.StatusOK, "")
	c.want("the second", c.do(second.nginx(c.edges[1])), http.StatusOK, "")
	flood := make([]*http.Request, 20)
	for i := range flood {
		flood[i] = c.box("family", "soft3", "198.51.100.8", 10+i).nginx(c.edges[i%len(c.edges)])
	}
	for _, a := range c.together(flood) {
		c.want("one of a flood", a, http.StatusForbidden, "limit")
	}
	c.want("the first, within the time", c.do(first.nginx(c.edges[0])), http.StatusOK, "")

	db, err := pgx.Connect(c.t.Context(), c.dsn)
	must(c.t, err)
	defer func() { must(c.t, db.Close(context.WithoutCancel(c.t.Context()))) }()
	tag, err := db.Exec(c.t.Context(), "UPDATE usher.soft_excess SET at = at - interval '90 s', idle_at = idle_at - interval '90 s', cut_at = cut_at - interval '90 s'")
	must(c.t, err)
	if tag.RowsAffected() != 1 {
		c.t.Errorf("%d excesses, want 1", tag.RowsAffected())
	}
	var a answer
	c.eventually(patience, "the first is cut", func() bool {
		a = c.do(first.nginx(c.edges[0]))
		return a.status == http.StatusForbidden
	})
	c.want("the first", a, http.StatusForbidden, "evicted")
	c.want("the second", c.do(second.nginx(c.edges[1])), http.StatusOK, "")
	all := c.live(pgstore.SessionFilter{User: "family"})
	if len(all) != 1 || all[0].Stream != "soft2" {
		c.t.Errorf("live: %+v, want the second alone", all)
	}
	ended := c.live(pgstore.SessionFilter{User: "family", Closed: true})
	if !slices.ContainsFunc(ended, func(s pgstore.SessionRow) bool {
		return s.Stream == "soft1" && s.CloseReason != nil && *s.CloseReason == "evicted"
	}) {
		c.t.Errorf("ended: %+v, want the first as evicted", ended)
	}
}
