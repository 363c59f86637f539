package viewing_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
	"usher.internal/services/usher/command"
)

const usersPolicy = `
version: 1
defaults: {on_unavailable: grace, lease: 1500ms, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], token: ["query:token", "query:auth"], budget: 10s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  own: {type: users, allow_password: true, playlist: {url: "@SERVER@/hls/{stream}/index.m3u8?token={token}", public: true}}
streams:
  - match: "**"
    auth: own
    limit: {sessions: 1, mode: refuse}
`

// operator is somebody at the command line of the cluster.
type operator struct {
	c   *cluster
	key string
}

func (c *cluster) operator() operator {
	key := filepath.Join(c.t.(*testing.T).TempDir(), "cluster.key")
	must(c.t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, access.ClusterKeySize))), 0o600))
	return operator{c, key}
}

// usher runs a command, which must succeed, and gives what it prints.
func (o operator) usher(in string, args ...string) string {
	o.c.t.Helper()
	args = append(args, "--postgres", o.c.dsn)
	if args[1] == "add" && args[0] == "users" {
		args = append(args, "--cluster-key", o.key)
	}
	var out, errs strings.Builder
	if code := command.Main(context.Background(), args, command.App{Out: &out, Err: &errs, In: strings.NewReader(in)}); code != 0 {
		o.c.t.Fatalf("usher %v = %d: %s%s", args, code, out.String(), errs.String())
	}
	return out.String()
}

// subscriber adds one with a token of his own and gives it.
func (o operator) subscriber(user string, args ...string) string {
	o.c.t.Helper()
	out := o.usher("", append([]string{"users", "add", user, "--generate-token"}, args...)...)
	_, token, ok := strings.Cut(out, "token: ")
	if !ok {
		o.c.t.Fatalf("no token in %q", out)
	}
	return strings.TrimSpace(token)
}

// TestOwnSubscribers goes with an operator who has no middleware from the first subscriber to the
// last, over two edges and two callers.
func TestOwnSubscribers(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: strings.ReplaceAll(usersPolicy, "@SERVER@", "http://127.0.0.1")})
	o := c.operator()
	o.usher("", "packages", "add", "basic", "--streams", "news,sport")
	anna := o.subscriber("anna", "--packages", "basic", "--sessions", "2")
	o.usher("word:of:berta\n", "users", "add", "berta", "--password-stdin")
	tv := viewer{node: "astra1", stream: "news", token: anna, ip: "203.0.113.1", agent: "TV", session: "1"}
	phone := viewer{node: "web1", stream: "sport", token: anna, ip: "203.0.113.1", agent: "Phone"}
	third := viewer{node: "web1", stream: "sport", token: anna, ip: "203.0.113.2", agent: "Tablet"}
	c.want("through Astra", c.do(tv.astra(c.edges[0])), http.StatusOK, "")
	c.want("through nginx at another edge", c.do(phone.nginx(c.edges[1])), http.StatusOK, "")
	c.want("a third screen", c.do(third.nginx(c.edges[0])), http.StatusForbidden, string(access.Limit))
	if seats := c.live(pgstore.SessionFilter{User: "anna"}); len(seats) != 2 {
		t.Errorf("anna holds %d seats, want 2", len(seats))
	}
	films := viewer{node: "web1", stream: "films", token: anna, ip: "203.0.113.1", agent: "TV"}
	c.want("a stream of no package", c.do(films.nginx(c.edges[0])), http.StatusForbidden, string(access.NoPackage))
	stranger := viewer{node: "web1", stream: "news", token: "token-of-nobody", ip: "203.0.113.3", agent: "TV"}
	c.want("a token of nobody", c.do(stranger.nginx(c.edges[0])), http.StatusForbidden, string(access.BadToken))

	byName := func(password, agent string) answer {
		r := viewer{node: "astra1", stream: "news", ip: "203.0.113.4", agent: agent, session: agent}.astra(c.edges[0])
		r.URL.RawQuery = "auth=berta:" + password
		return c.do(r)
	}
	c.want("login and password", byName("word:of:berta", "Box"), http.StatusOK, "")
	c.want("a wrong password", byName("word", "Other"), http.StatusForbidden, string(access.BadToken))

	o.usher("", "users", "set", "anna", "--until", "2020-01-01")
	c.endsWithin(phone, "the subscription's end", string(access.Expired))
	o.usher("", "users", "set", "anna", "--until", "never")
	o.usher("", "packages", "set", "basic", "--streams", "news")
	c.eventually(patience, "the package without sport is known", func() bool {
		return c.do(phone.nginx(c.edges[1])).reason == string(access.NoPackage)
	})
	c.removed(o)
	c.noSecrets(anna, "word:of:berta")
}

// endsWithin fails unless a running viewer is refused for the reason when he is decided again.
func (c *cluster) endsWithin(v viewer, what, reason string) {
	c.t.Helper()
	c.eventually(patience, what+" reaches a running session", func() bool {
		a := c.do(v.nginx(c.edges[1]))
		return a.status == http.StatusForbidden && a.reason == reason
	})
}

// removed has a subscriber removed who is watching under a long lease.
func (c *cluster) removed(o operator) {
	c.t.Helper()
	c.enforce(strings.NewReplacer("@SERVER@", "http://127.0.0.1", "1500ms", "1h").Replace(usersPolicy))
	carl := viewer{node: "web1", stream: "news", token: o.subscriber("carl"), ip: "203.0.113.5", agent: "TV"}
	c.want("before the removal", c.do(carl.nginx(c.edges[0])), http.StatusOK, "")
	begin := time.Now()
	gone := make(chan time.Duration, 1)
	go func() {
		c.eventually(patience, "the removal ends his session", func() bool { return c.do(carl.nginx(c.edges[0])).status == http.StatusForbidden })
		gone <- time.Since(begin)
	}()
	o.usher("", "users", "remove", "carl")
	promptly(c.t, "the end of a removed subscriber's session", 2*time.Second, []time.Duration{<-gone})
	if seats := c.live(pgstore.SessionFilter{User: "carl"}); len(seats) != 0 {
		c.t.Errorf("after his removal carl holds %d seats", len(seats))
	}
}

// noSecrets looks for secrets in the rows and the logs.
func (c *cluster) noSecrets(secrets ...string) {
	c.t.Helper()
	steps := 0
	for _, listed := range c.rows(pgstore.DecisionFilter{}) {
		row, err := c.store.Decision(context.Background(), listed.ID)
		must(c.t, err)
		for _, step := range row.Steps {
			steps++
			for _, secret := range secrets {
				if strings.Contains(step.Text, secret) {
					c.t.Errorf("a secret stands in step %+v", step)
				}
			}
		}
	}
	if steps == 0 {
		c.t.Error("no decision has steps")
	}
	for _, secret := range secrets {
		if c.logs.says(secret) {
			c.t.Errorf("a secret stands in the logs")
		}
	}
}

// TestPlaylistsPlay fetches a subscriber's playlist from both edges and plays what it says through a
// real nginx.
func TestPlaylistsPlay(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: strings.ReplaceAll(usersPolicy, "@SERVER@", "http://127.0.0.1")})
	o := c.operator()
	o.usher("", "packages", "add", "basic", "--streams", "news,sport")
	server := startNginx(t, projectREADME, c.edges[0], "news", "sport")
	c.enforce(strings.ReplaceAll(usersPolicy, "@SERVER@", server))
	anna := o.subscriber("anna", "--packages", "basic")
	for i, edge := range c.edges {
		status, text, header := c.fetch(edge + "/v1/playlist/own/" + anna)
		if status != http.StatusOK || header.Get("Content-Disposition") != `attachment; filename="anna.m3u"` || header.Get("Cache-Control") != "private, no-store" {
			t.Fatalf("the playlist at edge %d: %d %v %s", i, status, header, text)
		}
		p := &player{c: c, agent: "VLC"}
		urls := p.entries(edge, text)
		if len(urls) != 2 {
			t.Fatalf("playlist:\n%s", text)
		}
		for _, url := range urls {
			p := &player{c: c, agent: "VLC", master: url} // zapping is no second viewer
			if got := p.open(0); got != http.StatusOK {
				t.Errorf("%s plays with %d", strings.TrimPrefix(url, server), got)
			}
		}
	}
	o.usher("", "users", "set", "anna", "--blocked", "yes")
	c.eventually(patience, "a blocked subscriber gets no playlist", func() bool {
		status, text, _ := c.fetch(c.edges[1] + "/v1/playlist/own/" + anna)
		return status == http.StatusForbidden && text == "no playlist: the subscriber is blocked\n"
	})
	if status, text, _ := c.fetch(c.edges[0] + "/v1/playlist/own/token-of-nobody"); status != http.StatusForbidden || !strings.HasPrefix(text, "no playlist") {
		t.Errorf("a token of nobody: %d %s", status, text)
	}
	if status, _, _ := c.fetch(c.edges[0] + "/v1/playlist/site/" + anna); status != http.StatusNotFound {
		t.Errorf("another check: %d, want 404", status)
	}
	c.eventually(patience, "the refusal has its row", func() bool {
		rows := c.rows(pgstore.DecisionFilter{})
		for _, r := range rows {
			if r.Caller == "playlist" && r.Reason == string(access.Blocked) {
				return true
			}
		}
		return false
	})
	c.noSecrets(anna)
}

func (c *cluster) fetch(address string) (status int, text string, header http.Header) {
	c.t.Helper()
	res, err := c.client.Do(get(address))
	must(c.t, err)
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(res.Body)
	must(c.t, err)
	return res.StatusCode, string(body), res.Header
}

// TestKnownSubscribersWhilePostgresIsAway lets in whom a worker remembers.
func TestKnownSubscribersWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 1, workers: 1, policy: strings.ReplaceAll(usersPolicy, "@SERVER@", "http://127.0.0.1")})
	o := c.operator()
	anna, berta := o.subscriber("anna"), o.subscriber("berta")
	v := viewer{node: "web1", stream: "news", token: anna, ip: "203.0.113.1", agent: "TV"}
	c.want("while it is there", c.do(v.nginx(c.edges[0])), http.StatusOK, "")
	c.gate.Shut()
	v.stream = "sport"
	c.want("a known subscriber opens another stream", c.do(v.nginx(c.edges[0])), http.StatusOK, "")
	unknown := viewer{node: "web1", stream: "news", token: berta, ip: "203.0.113.2", agent: "TV"}
	c.want("one whom nobody can know", c.do(unknown.nginx(c.edges[0])), http.StatusForbidden, string(access.Unavailable))
	c.gate.Open()
	c.eventually(patience, "Postgres is back", func() bool {
		unknown.agent += "x" // not the question of a moment ago
		return c.do(unknown.nginx(c.edges[0])).status == http.StatusOK
	})
}
