package viewing_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const reloadPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 10s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
streams:
  - match: "news"
    auth: allow
  - match: "**"
    auth: deny
`

// spread is how soon a revision acts on every edge and worker.
const spread = time.Second

// everyAnswer puts a question of its own to each edge, often enough that each worker has some.
func (c *cluster) everyAnswer(stream string, n *int) []answer {
	var questions []*http.Request
	for range 8 {
		for _, edge := range c.edges {
			*n++
			v := viewer{node: "astra1", stream: stream, ip: "203.0.113.9", agent: fmt.Sprint("player ", *n), session: fmt.Sprint(*n)}
			questions = append(questions, v.astra(edge))
		}
	}
	return c.together(questions)
}

func (c *cluster) allAnswer(what, stream string, n *int, status int) {
	c.t.Helper()
	for _, a := range c.everyAnswer(stream, n) {
		c.want(what, a, status, "")
	}
}

// enforce applies a policy and returns how long it took until it acted everywhere.
func (c *cluster) enforce(policy string) time.Duration {
	c.t.Helper()
	begin := time.Now()
	revision := c.apply(policy)
	c.eventually(patience, "the revision is in force everywhere", func() bool { return c.inForce(revision) })
	return time.Since(begin)
}

func TestPolicyIsSpreadToAll(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 3, policy: reloadPolicy})
	n := 0
	var took []time.Duration
	closed := strings.Replace(reloadPolicy, "match: \"news\"\n    auth: allow", "match: \"news\"\n    auth: deny", 1)
	for range 3 {
		for _, step := range []struct {
			policy string
			status int
		}{{closed, 403}, {reloadPolicy, 200}} {
			took = append(took, c.enforce(step.policy))
			c.allAnswer("under the new revision", "news", &n, step.status)
		}
	}
	promptly(t, "a revision on every edge and worker", spread, took)
	good := c.apply(reloadPolicy)
	c.eventually(patience, "the revision is in force everywhere", func() bool { return c.inForce(good) })
	// The command checks a policy before it stores it. A newer version of it, or a hand, may not.
	for _, bad := range []struct{ name, policy string }{
		{"no YAML", "version: [1\n"},
		{"nothing", ""},
		{"an unknown key", closed + "limits: {}\n"},
		{"an unknown check", strings.Replace(closed, "auth: deny", "auth: nobody", 1)},
		{"a pattern that is none", strings.Replace(closed, `"news"`, `"***"`, 1)},
	} {
		revision := c.apply(bad.policy)
		c.eventually(patience, "the recorder has looked at "+bad.name, func() bool {
			return c.logs.says(fmt.Sprintf("cannot be used, it is not spread\" revision=%d ", revision))
		})
		c.allAnswer("after a revision with "+bad.name, "news", &n, 200)
		if !c.inForce(good) {
			t.Errorf("revision %d with %s changed something", revision, bad.name)
		}
	}
	// Only workers can see that a secret is not there.
	revision := c.apply(strings.Replace(closed, "streams:", "checks:\n  x: {type: securetoken, secret: \"file:/nowhere/secret\"}\nstreams:", 1))
	for i := range c.workerMetrics {
		c.eventually(patience, "each worker has looked at a revision without its secret", func() bool {
			return c.logs.says(fmt.Sprintf("the old one stays\" worker=worker%d revision=%d ", i+1, revision))
		})
	}
	c.allAnswer("after a revision without its secret", "news", &n, 200)
	// What is bad does not stand in the way of what is good.
	c.enforce(closed)
	c.allAnswer("after all", "news", &n, 403)
}
