package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/libs/token/securetoken"
	"usher.internal/services/usher/cluster"
	"usher.internal/services/usher/command"
)

const secret = "an end-to-end secret"

// running is a cluster in this process.
type running struct {
	cluster.Ready
	data cluster.Data
	stop func()
}

// boot starts a cluster on a data directory and stops it when the test ends.
func boot(t *testing.T, o cluster.Options) *running {
	t.Helper()
	ready, ended := make(chan cluster.Ready, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	o.Telemetry, o.Unsafe = telemetry.StartWith(nil), true
	if o.HTTP == "" {
		o.HTTP = "127.0.0.1:0"
	}
	o.Ready = func(r cluster.Ready) { ready <- r }
	go func() { ended <- cluster.Run(ctx, o) }()
	stopped := false
	c := &running{data: o.Data, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the cluster stopped with %v", err)
		}
	}}
	t.Cleanup(func() { c.stop() })
	select {
	case c.Ready = <-ready:
	case err := <-ended:
		stopped = true
		t.Fatalf("the cluster did not start: %v", err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the cluster is not ready after 2 minutes")
	}
	return c
}

// writePolicy writes a policy with one nginx node and one astra node, both on loopback.
func writePolicy(t *testing.T, path, streams string) {
	t.Helper()
	file := filepath.Join(filepath.Dir(path), "secret")
	write(t, file, secret)
	write(t, path, `
version: 1
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**"}
  astra1: {caller: astra, from: [127.0.0.1], hold: 1h}
checks:
  site: {type: securetoken, secret: "file:`+file+`", check_ip: false, salt_length: 8}
streams:
`+streams)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ticket is a good token of a user for a stream.
func ticket(t *testing.T, stream, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, secret)
	o := securetoken.NewOptions()
	o.CheckIP, o.SaltLength = false, 8
	if err := o.Secret.UnmarshalText([]byte("file:" + path)); err != nil {
		t.Fatal(err)
	}
	text, err := securetoken.Sign(o, securetoken.Ticket{
		Stream: stream, User: user, Start: time.Now().Add(-time.Minute), End: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// answer is what an edge said to an nginx.
type answer struct {
	status   int
	decision uuid.UUID
	reason   string
}

// ask asks as nginx would for a viewer with this user agent.
func (c *running) ask(t *testing.T, uri, agent string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.HTTP.String()+"/v1/nginx/web1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Original-URI", uri)
	r.Header.Set("X-Real-IP", "192.0.2.1")
	r.Header.Set("User-Agent", agent)
	return send(t, r)
}

func send(t *testing.T, r *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	id, err := uuid.Parse(resp.Header.Get("X-Usher-Decision"))
	if err != nil {
		t.Errorf("X-Usher-Decision: %v", err)
	}
	return answer{resp.StatusCode, id, resp.Header.Get("X-Usher-Reason")}
}

// outcome is what stands in usher.decisions under the id, "" if nothing does.
func outcome(t *testing.T, dsn string, id uuid.UUID) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), "SELECT outcome || ' ' || reason FROM usher.decisions WHERE decision_id = $1", id.String())
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}

// tool runs one of usher's commands on the cluster and gives what it printed.
func (c *running) tool(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--data", string(c.data))
	if got := command.Main(t.Context(), args, command.App{Out: &out, Err: &errs, Version: "test"}); got != want {
		t.Fatalf("usher %s = %d, want %d: %s", strings.Join(args, " "), got, want, errs.String())
	}
	return out.String() + errs.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		case <-tick.C:
		}
	}
}

const siteRule = `
  - {match: "free-*", auth: allow}
  - {match: "**", auth: site, limit: {sessions: 2, by: user, mode: refuse}}
`

// TestCluster is the life of `usher up` in one process: questions, rows, tools, a restart.
func TestCluster(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	policy := filepath.Join(dir, "policy.yaml")
	writePolicy(t, policy, siteRule)
	c := boot(t, cluster.Options{Data: cluster.Data(dir), Policy: policy})
	good := "/hls/news/index.m3u8?token=" + ticket(t, "news", "anna")

	allowed := c.ask(t, good, "tv")
	if allowed.status != http.StatusOK {
		t.Fatalf("a good token = %+v, want 200", allowed)
	}
	if got := outcome(t, c.DSN, allowed.decision); got != "allow granted" {
		t.Errorf("its row says %q", got)
	}
	refused := c.ask(t, good+"x", "other")
	if refused.status != http.StatusForbidden || refused.reason != "bad_token" {
		t.Fatalf("a forged token = %+v, want 403 bad_token", refused)
	}
	if got := outcome(t, c.DSN, refused.decision); got != "deny bad_token" {
		t.Errorf("its row says %q", got)
	}
	again := c.ask(t, "/hls/news/720p/seg1.ts", "tv")
	if again.status != http.StatusOK || again.decision != allowed.decision {
		t.Errorf("a segment of the running session = %+v, want 200 under %s", again, allowed.decision)
	}
	t.Run("tools", func(t *testing.T) { tools(t, c, allowed.decision, refused.decision) })
	t.Run("policy", func(t *testing.T) { reload(t, c, policy) })
	t.Run("kill", func(t *testing.T) { kill(t, c, good) })

	c.stop()
	c = boot(t, cluster.Options{Data: cluster.Data(dir), Policy: policy})
	if got := outcome(t, c.DSN, allowed.decision); got != "allow granted" {
		t.Errorf("after a restart the row says %q", got)
	}
	if a := c.ask(t, "/hls/free-sport/index.m3u8", "tv"); a.status != http.StatusOK {
		t.Errorf("after a restart a free stream = %+v, want 200", a)
	}
}

// tools look at what the questions left behind.
func tools(t *testing.T, c *running, allowed, refused uuid.UUID) {
	for name, want := range map[string]struct {
		args []string
		has  []string
	}{
		"sessions":       {[]string{"sessions", "list"}, []string{"anna", "news", "web1", "playing"}},
		"user":           {[]string{"users", "show", "anna"}, []string{"anna plays 1 now", allowed.String()}},
		"history":        {[]string{"history", "--stream", "news"}, []string{allowed.String(), refused.String()}},
		"why":            {[]string{"why", "--stream", "news"}, []string{"asked 2 times", "50 % allowed", "bad_token", "by check site", "Playing now: 1"}},
		"why nobody":     {[]string{"why", "--stream", "nothing"}, []string{"no node asked", "asked about others"}},
		"explain":        {[]string{"explain", refused.String()}, []string{"deny, bad_token", "check site", "ms"}},
		"try, no token":  {[]string{"explain", "--url", "/hls/news/index.m3u8", "--node", "web1"}, []string{"deny, no_token"}},
		"try, free":      {[]string{"explain", "--url", "https://tv.example.com/hls/free-x/index.m3u8", "--node", "web1"}, []string{"allow, allow_rule"}},
		"try at astra":   {[]string{"explain", "--url", "/play/1", "--channel", "free-x", "--node", "astra1"}, []string{"allow, allow_rule"}},
		"policy history": {[]string{"policy", "history"}, []string{"usher up"}},
		"policy show":    {[]string{"policy", "show"}, []string{"# revision 1", "web1:"}},
		"dsn":            {[]string{"dsn"}, []string{c.DSN}},
	} {
		t.Run(name, func(t *testing.T) {
			out := c.tool(t, 0, want.args...)
			for _, text := range want.has {
				if !strings.Contains(out, text) {
					t.Errorf("usher %s does not say %q:\n%s", strings.Join(want.args, " "), text, out)
				}
			}
		})
	}
	for _, args := range [][]string{
		{"sessions", "list"}, {"history", "--user", "anna"}, {"why", "--user", "anna"}, {"users", "show", "anna"},
		{"policy", "history"}, {"explain", allowed.String()}, {"explain", "--url", "/hls/free-x/a.m3u8", "--node", "web1"},
	} {
		var v any
		if out := c.tool(t, 0, append(args, "--json")...); json.Unmarshal([]byte(out), &v) != nil {
			t.Errorf("usher %s --json is not JSON:\n%s", strings.Join(args, " "), out)
		}
	}
	for name, args := range map[string][]string{
		"no subject":       {"why"},
		"bad id":           {"explain", "x"},
		"unknown decision": {"explain", "01890000-0000-7000-8000-000000000000"},
		"unknown node":     {"explain", "--url", "/hls/a/b", "--node", "nobody"},
		"unknown session":  {"sessions", "show", uuid.NewString()},
		"nothing to kill":  {"sessions", "kill", uuid.NewString()},
		"bad address":      {"history", "--ip", "300.1.1.1"},
	} {
		t.Run(name, func(t *testing.T) { c.tool(t, 1, args...) })
	}
}

// reload saves the policy file: a good change is in force soon, a bad one changes nothing.
func reload(t *testing.T, c *running, policy string) {
	if a := c.ask(t, "/hls/gratis/index.m3u8", "r"); a.status != http.StatusForbidden {
		t.Fatalf("before the change = %+v, want 403", a)
	}
	writePolicy(t, policy, `  - {match: "gratis", auth: allow}`+siteRule)
	eventually(t, "the changed policy lets the viewer in", func() bool {
		return c.ask(t, "/hls/gratis/index.m3u8", "r2").status == http.StatusOK
	})
	write(t, policy, "version: 1\nstreems: []\n")
	if out := c.tool(t, 1, "policy", "apply", policy); !strings.Contains(out, "streams") || !strings.Contains(out, ":2:1") {
		t.Errorf("usher policy apply does not name place and suggestion:\n%s", out)
	}
	writePolicy(t, policy, siteRule)
	eventually(t, "the policy is back", func() bool {
		// A new viewer each time: one who plays goes on until his lease is due.
		return c.ask(t, "/hls/gratis/index.m3u8", uuid.NewString()).status == http.StatusForbidden
	})
	if out := c.tool(t, 0, "policy", "show"); !strings.Contains(out, "# revision 3") {
		t.Errorf("usher policy show says:\n%s", strings.SplitN(out, "\n", 2)[0])
	}
}

// kill ends the running session by its id: it is refused within a second.
func kill(t *testing.T, c *running, good string) {
	var rows []struct {
		ID string `json:"session_id"`
	}
	if err := json.Unmarshal([]byte(c.tool(t, 0, "sessions", "list", "--user", "anna", "--json")), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("sessions of anna = %v, %v; want one", rows, err)
	}
	c.tool(t, 0, "sessions", "kill", rows[0].ID)
	eventually(t, "the killed session is refused", func() bool { return c.ask(t, good, "tv").status == http.StatusForbidden })
}
