package viewing_test

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

const callerPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 5s}
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 5s}
  caddy1: {caller: caddy, from: [127.0.0.1], client_ip: {trust: [127.0.0.1, 10.0.0.0/8]}, budget: 5s}
  elsewhere: {caller: astra, from: [10.9.9.9], budget: 5s}
  other-edge: {caller: astra, from: [127.0.0.1], edge: edge77, budget: 5s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "**", auth: site, limit: {sessions: 2, mode: refuse}}
`

// raw is a question as bytes, since a client of net/http would not send these.
type raw struct {
	target string
	header []string // lines, in order
}

func (r raw) String() string {
	return "GET " + r.target + " HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n" + strings.Join(r.header, "\r\n") + "\r\n\r\n"
}

// with is r with another value of one header line, "" to leave the line out.
func (r raw) with(name, value string) raw {
	out := raw{target: r.target}
	for _, line := range r.header {
		if !strings.HasPrefix(line, name+": ") {
			out.header = append(out.header, line)
		}
	}
	if value != "" {
		out.header = append(out.header, name+": "+value)
	}
	return out
}

// send puts a question from an address of this machine and reads the answer. Whatever is no
// answer, a yes, a redirect or a fault of the server fails the test.
func (c *cluster) send(edge, from, question string) answer {
	c.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(edge, "http://"))
	must(c.t, err)
	defer func() { _ = conn.Close() }() // it was read
	go func() {
		_, _ = conn.Write([]byte(question)) // the edge may answer before it has read all
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		c.t.Errorf("no answer to %.200q: %v", question, err)
		return answer{}
	}
	defer func() { _ = res.Body.Close() }() // it is empty
	a := answer{status: res.StatusCode, reason: res.Header.Get("X-Usher-Reason"), header: res.Header}
	if a.status == http.StatusForbidden {
		a.decision, err = uuid.Parse(res.Header.Get("X-Usher-Decision"))
		if err != nil {
			c.t.Errorf("the answer to %.200q has no decision: %v", question, err)
		}
	}
	return a
}

// unreadable says that HTTP itself could not be read, which net/http answers before us.
func unreadable(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusRequestHeaderFieldsTooLarge
}

// refusals are the answers that the edges gave, to be found again in the audit.
type refusals struct {
	c      *cluster
	asking sync.WaitGroup
	room   chan struct{} // so many at a time

	mu  sync.Mutex // guards all below
	n   int
	all []answer
}

// ask puts a question that must be refused; reason counts where it is not "". It does not wait
// for the answer, which is given to then if that is not nil.
func (r *refusals) ask(from, question string, reason access.Reason, then func(answer)) {
	r.mu.Lock()
	edge := r.c.edges[r.n%len(r.c.edges)]
	r.n++
	r.mu.Unlock()
	r.room <- struct{}{}
	r.asking.Go(func() {
		defer func() { <-r.room }()
		a := r.c.send(edge, from, question)
		switch {
		case a.status == http.StatusForbidden:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.all = append(r.all, a)
			if reason != "" && a.reason != string(reason) {
				r.c.t.Errorf("%.200q: refused because of %s, want %s", question, a.reason, reason)
			}
			if then != nil {
				then(a)
			}
		case reason != "" || !unreadable(a.status):
			r.c.t.Errorf("%.200q: answered %v, want 403", question, a)
		}
	})
}

// hostile is what no streaming server sends, and somebody will.
var hostile = []string{
	"", "\xff\xfe\xfd", "\xed\xa0\x80", "\xc0\x80", "a\x00b", "%00", "%ff", "%", "%zz", "\x01\x02\x1b[31m", "\u202egnp.exe", "\u0000",
	"'; DROP SCHEMA usher CASCADE; --", "{{7*7}}${7*7}", "../../etc/passwd", "a b", " ", "\t", "0", "-1", "999999999999999999999",
	"null", "[]", `{"a":1}`, strings.Repeat("A", 3000), strings.Repeat("\xff", 9000), strings.Repeat("A", 60<<10), strings.Repeat("A", 1<<20),
}

// queries are hostile as a whole.
var queries = []string{
	"", "?", "token", "token=%00", "token=%ff", "token=%", "token=\xff", "token=a&token=b", "token[]=x", "token=a&token[0]=b", "%74oken=a&token=b",
	";token=x", "token=x;y", "&&&&", "=", "token=" + strings.Repeat("A", 9000), strings.Repeat("a=b&", 10_000), strings.Repeat("A", 100<<10),
	"token=\x01", "token=a%0d%0aX-Injected:%201", "token=%u0041", "remote=1.2.3.4&user_id=1&token=x",
}

func TestHostileQuestions(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: callerPolicy})
	r := &refusals{c: c, room: make(chan struct{}, 16)}
	forged := "0123456789abcdef0123456789abcdef01234567-ssssssssssssssss-4102444800-1500000000-mallory"
	astra := raw{"/v1/astra/astra1/check?token=" + forged, []string{
		"X-Session-ID: 1", "X-Channel-ID: news", "X-Real-IP: 203.0.113.9", "X-Real-Path: /play/news/index.m3u8",
		"X-Real-UA: Box", "X-Real-Host: tv.example.com", "X-Real-Origin: http://tv.example.com",
	}}
	nginx := raw{"/v1/nginx/web1", []string{
		"X-Original-URI: /hls/news/index.m3u8?token=" + forged, "X-Original-Method: GET", "X-Real-IP: 203.0.113.9",
		"User-Agent: VLC", "Referer: http://tv.example.com/", "Origin: http://tv.example.com", "X-Original-URL: ",
	}}
	caddy := raw{"/v1/caddy/caddy1", []string{
		"X-Forwarded-Uri: /hls/news/index.m3u8?token=" + forged, "X-Forwarded-Method: GET", "X-Forwarded-For: 203.0.113.9",
		"X-Forwarded-Host: tv.example.com", "User-Agent: VLC",
	}}
	for _, sound := range []raw{astra, nginx, caddy} {
		r.ask("127.0.0.1", sound.String(), access.BadToken, nil)
		for _, line := range sound.header {
			name, _, _ := strings.Cut(line, ":")
			for _, value := range hostile {
				r.ask("127.0.0.1", sound.with(name, value).String(), "", nil)
			}
			twice := sound
			twice.header = append(slices.Clone(sound.header), line)
			r.ask("127.0.0.1", twice.String(), "", nil)
		}
	}
	for _, q := range queries {
		r.ask("127.0.0.1", raw{"/v1/astra/astra1/check?" + q, astra.header}.String(), "", nil)
		r.ask("127.0.0.1", nginx.with("X-Original-URI", "/hls/news/index.m3u8?"+q).String(), "", nil)
	}
	for _, uri := range []string{
		"/", "//", "/hls", "/hls/", "/hls//", "hls/news/x", "*", "/hls/../x", "/hls/%2e%2e/x", "/hls/news/..%2fx", "/hls/news%00/x", "/hls/\xff/x",
		"/hls/news/x#y", "/hls/news\\x", "http://x/hls/news/x", "/hls/%", "/" + strings.Repeat("a/", 5000), "/hls/" + strings.Repeat("%41", 5000),
	} {
		r.ask("127.0.0.1", nginx.with("X-Original-URI", uri).String(), access.BadRequest, nil)
	}
	c.outsiders(r, astra)
	var misled uuid.UUID
	// Edges do not even know of another edge's node.
	r.ask("127.0.0.1", raw{"/v1/astra/other-edge/check", astra.header}.String(), access.UnknownNode, func(a answer) { misled = a.decision })
	r.asking.Wait()
	c.inTheAudit(r, misled)
	c.oddButHonest()
	for i, m := range c.edgeMetrics {
		if n := c.metric(m, telemetry.EdgePanics().Name); n != 0 {
			t.Errorf("edge %d panicked %v times", i+1, n)
		}
	}
}

// outsiders are those who may not ask at all.
func (c *cluster) outsiders(r *refusals, astra raw) {
	for range 20 {
		for _, path := range []string{"/v1/astra/nobody/check", "/v1/nginx/astra1", "/v1/astra/web1", "/v1/caddy/web1"} {
			r.ask("127.0.0.1", raw{path, astra.header}.String(), access.UnknownNode, nil)
		}
		for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
			r.ask(from, astra.String(), access.WrongSource, nil)
		}
		r.ask("127.0.0.1", raw{"/v1/astra/elsewhere/check", astra.header}.String(), access.WrongSource, nil)
	}
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/astra", "/v1/astra/", "/v1//astra1", "//v1/astra/astra1", "/v2/astra/astra1", "/v1/unheard/astra1", "/v1/astra/%00",
		"/v1/astra/%ff%fe", "/v1/astra/" + strings.Repeat("n", 5000), "/v1/astra/../astra/astra1", "/v1/ASTRA/astra1", "/metrics", "/healthz", "/favicon.ico",
		"http://evil/v1/astra/nobody",
	} {
		r.ask("127.0.0.1", raw{path, astra.header}.String(), "", nil)
	}
	r.ask("127.0.0.1", "OPTIONS * HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n", "", nil)
	r.ask("127.0.0.1", "CONNECT edge:80 HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n", "", nil)
	for _, garbage := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "GET /v1/astra/astra1/check HTTP/1.1\r\n\r\n"} {
		r.ask("127.0.0.1", garbage, "", nil)
	}
}

// inTheAudit holds the refusals against the rows: each stands under its id as a denial, and
// what has no row of its own is counted in the row that it repeats. misled was asked at the
// wrong edge.
func (c *cluster) inTheAudit(r *refusals, misled uuid.UUID) {
	t := c.t
	var rows map[uuid.UUID]pgstore.DecisionRow
	stored := 0
	c.eventually(patience, "every refusal has its row or is counted in one", func() bool {
		rows, stored = byID(t, c.rows(pgstore.DecisionFilter{})), 0
		for _, row := range rows {
			stored += 1 + int(row.Repeats)
		}
		return stored >= len(r.all)
	})
	if stored != len(r.all) {
		t.Errorf("%d refusals are counted as %d", len(r.all), stored)
	}
	perReason := map[string]int{}
	for _, a := range r.all {
		row, ok := rows[a.decision]
		if !ok || row.Outcome != "deny" || row.Reason != a.reason {
			t.Errorf("the answer %v under %s stands as %+v", a, a.decision, row)
		}
	}
	for id, row := range rows {
		if id == misled {
			continue
		}
		perReason[fmt.Sprint(row.Edge, " ", row.Reason, " ", row.Node, " ", row.IP)]++
	}
	for _, who := range slices.Sorted(maps.Keys(perReason)) {
		byEdge := strings.Contains(who, string(access.UnknownNode)) || strings.Contains(who, string(access.WrongSource)) ||
			strings.Contains(who, string(access.BadRequest))
		if n := perReason[who]; byEdge && n != 1 {
			t.Errorf("%d rows within a minute for %s, want 1 and its repeats", n, who)
		}
	}
	row, err := c.store.Decision(t.Context(), misled)
	must(t, err)
	if row == nil || row.Node != "" || len(row.Steps) != 1 || !strings.Contains(row.Steps[0].Text, "other-edge") {
		t.Errorf("the row of a question at the wrong edge is %+v, want one that names the node in its step alone", row)
	}
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		rows := c.rows(pgstore.DecisionFilter{IP: netip.MustParseAddr(from)})
		if len(rows) == 0 || len(rows) > len(c.edges) || rows[0].Reason != string(access.WrongSource) {
			t.Errorf("rows about %s: %+v, want one an edge, %s", from, rows, access.WrongSource)
		}
	}
}

// oddButHonest are viewers whose players say strange things of themselves.
func (c *cluster) oddButHonest() {
	for i, agent := range []string{"\xff\xfeplayer", "\u202eplayer", "\xed\xa0\x80", strings.Repeat("player ", 5000), "'; DROP SCHEMA usher CASCADE; --"} {
		user := fmt.Sprint("honest", i)
		question := raw{"/v1/astra/astra1/check" + query(c.sign("news", user)), []string{
			"X-Session-ID: " + user, "X-Channel-ID: news", "X-Real-IP: 203.0.113.9", "X-Real-UA: " + agent}}
		c.want("an honest viewer with an odd player", c.send(c.edges[0], "127.0.0.1", question.String()), http.StatusOK, "")
		if seats := c.live(pgstore.SessionFilter{User: user}); len(seats) != 1 {
			c.t.Errorf("%s with an odd player holds %d seats, want 1", user, len(seats))
		}
	}
}
