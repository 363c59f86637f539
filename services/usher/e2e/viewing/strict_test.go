package viewing_test

import (
	"fmt"
	"net/http"
	"testing"

	"usher.internal/libs/pgstore"
)

// strictPolicy gives callers much time: what is tested is the count, on machines of any speed.
const strictPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 15s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 15s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - match: "**"
    auth: site
    limit: {sessions: 3, by: user, mode: refuse}
`

const (
	opensAtOnce = 300
	strictLimit = 3
)

// openers are simultaneous opens of one user, each on a device of its own, spread over all
// edges, half through Astra and half through nginx.
func (c *cluster) openers(user, stream string, n int) []*http.Request {
	token := c.sign(stream, user)
	questions := make([]*http.Request, n)
	for i := range questions {
		v := viewer{
			stream: stream, token: token, ip: fmt.Sprintf("203.0.113.%d", i%250),
			session: fmt.Sprintf("%s-%d", user, i), agent: fmt.Sprintf("player/%d of %s", i, user),
		}
		base := c.edges[i%len(c.edges)]
		if v.node = "astra1"; i/len(c.edges)%2 == 0 {
			questions[i] = v.astra(base)
			continue
		}
		v.node = "web1"
		questions[i] = v.nginx(base)
	}
	return questions
}

// audited holds the answers about a user against his rows: each answer has its row, with its
// outcome, exactly once, and nothing else has one.
func (c *cluster) audited(user string, answers []answer) {
	c.t.Helper()
	rows := byID(c.t, c.rows(pgstore.DecisionFilter{User: user}))
	if len(rows) != len(answers) {
		c.t.Errorf("%s: %d answers have %d rows", user, len(answers), len(rows))
	}
	holders := map[string]bool{}
	for _, s := range c.live(pgstore.SessionFilter{User: user}) {
		holders[s.Decision.String()] = true
	}
	for _, a := range answers {
		row, ok := rows[a.decision]
		delete(rows, a.decision)
		want := map[int]string{http.StatusOK: "allow granted", http.StatusForbidden: "deny limit"}[a.status]
		switch got := row.Outcome + " " + row.Reason; {
		case !ok:
			c.t.Errorf("%s: the answer %v under %s has no row of its own", user, a, a.decision)
		case got != want:
			c.t.Errorf("%s: the answer %v under %s stands as %q", user, a, a.decision, got)
		case holders[a.decision.String()] != (a.status == http.StatusOK):
			c.t.Errorf("%s: the answer %v under %s holds a seat: %v", user, a, a.decision, holders[a.decision.String()])
		}
	}
}

func (c *cluster) admitted(user string, answers []answer, want int) {
	c.t.Helper()
	admitted := 0
	for _, a := range answers {
		switch a.status {
		case http.StatusOK:
			admitted++
		case http.StatusForbidden:
		default:
			c.t.Errorf("%s: answered %v, want 200 or 403", user, a)
		}
	}
	if admitted != want {
		c.t.Errorf("%s: %d of %d simultaneous opens were admitted, want exactly %d", user, admitted, len(answers), want)
	}
	if seats := len(c.live(pgstore.SessionFilter{User: user})); seats != want {
		c.t.Errorf("%s holds %d seats, want %d", user, seats, want)
	}
}

func TestStrictOverEdgesAndWorkers(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 4, policy: strictPolicy})
	for round := range 6 {
		user := fmt.Sprintf("alone%d", round)
		answers := c.together(c.openers(user, "news", opensAtOnce))
		c.admitted(user, answers, strictLimit)
		c.audited(user, answers)
	}
	// Ten users at once: their opens share batches of the group commit.
	for round := range 2 {
		const users = 10
		var questions []*http.Request
		for i := range users {
			questions = append(questions, c.openers(fmt.Sprintf("crowd%d-%d", round, i), "sport", opensAtOnce/users)...)
		}
		answers := c.together(questions)
		for i := range users {
			user := fmt.Sprintf("crowd%d-%d", round, i)
			his := answers[i*opensAtOnce/users : (i+1)*opensAtOnce/users]
			c.admitted(user, his, strictLimit)
			c.audited(user, his)
		}
	}
	for i, m := range c.workerMetrics {
		if c.metric(m, "usher_worker_answers_total") == 0 {
			t.Errorf("worker %d answered nothing: the load was not spread", i+1)
		}
	}
}
