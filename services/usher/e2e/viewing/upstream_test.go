package viewing_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
)

const upstreamPolicy = `
version: 1
defaults: {on_unavailable: grace, lease: 120s, idle: 60s}
nodes:
  astra1: {caller: astra, from: [127.0.0.1], budget: 3s}
checks:
  billing: {type: http, url: "@BACKEND@/check?key=K", timeout: 300ms, breaker: {failures: 3, open: 1s}}
  strict: {type: http, url: "@BACKEND@/check?key=K", timeout: 300ms, on_unavailable: deny}
  lax: {type: http, url: "@BACKEND@/check?key=K", timeout: 300ms, on_unavailable: allow}
streams:
  - {match: "strict*", auth: strict, on_unavailable: allow}
  - {match: "lax*", auth: lax, on_unavailable: deny}
  - {match: "closed*", auth: billing, on_unavailable: deny}
  - {match: "open*", auth: billing, on_unavailable: allow}
  - {match: "brief*", auth: billing, lease: 1s}
  - {match: "**", auth: billing}
`

// backend is an operator's own subscriber system, as Astra would ask it.
type backend struct {
	*httptest.Server
	mu    sync.Mutex // guards all below
	hangs chan struct{}
	asked []*http.Request
}

func newBackend(t *testing.T) *backend {
	b := &backend{}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	t.Cleanup(b.recover)
	return b
}

// ServeHTTP knows one token a user: "for-" and his id.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.asked = append(b.asked, r.Clone(r.Context()))
	hangs := b.hangs
	b.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	user, ok := strings.CutPrefix(r.URL.Query().Get("token"), "for-")
	if !ok {
		w.Header().Set("X-Location", "https://tv.example.com/pay")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("X-UserId", user)
	w.Header().Set("X-Session-Name", "Mr "+user)
	w.Header().Set("X-Max-Sessions", "2")
}

// hang makes every further question wait until recover.
func (b *backend) hang() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hangs = make(chan struct{})
}

func (b *backend) recover() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hangs != nil {
		close(b.hangs)
	}
	b.hangs = nil
}

func (b *backend) last() *http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[len(b.asked)-1]
}

// subscriber is a viewer at the Astra, whose every question is a new session.
type subscriber struct {
	c       *cluster
	session int
}

func (s *subscriber) ask(stream, token, agent string) answer {
	s.session++
	v := viewer{
		node: "astra1", stream: stream, token: token, ip: "203.0.113.9", agent: agent, session: fmt.Sprint("number ", s.session),
	}
	return s.c.do(v.astra(s.c.edges[s.session%len(s.c.edges)]))
}

func TestAnOperatorsBackend(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := setup(t, shape{edges: 2, workers: 2, policy: strings.ReplaceAll(upstreamPolicy, "@BACKEND@", b.URL)})
	s := &subscriber{c: c}

	yes := s.ask("news", "for-ann&sons", "Box")
	c.want("a subscriber", yes, http.StatusOK, "")
	if got := yes.header.Get("X-Session-Name"); got != "Mr ann&sons" {
		t.Errorf("X-Session-Name = %q, want the backend's", got)
	}
	no := s.ask("news", "+stranger+", "Box")
	c.want("a stranger", no, http.StatusForbidden, "refused")
	if got := no.header.Get("X-Location"); got != "https://tv.example.com/pay" {
		t.Errorf("X-Location = %q, want the backend's", got)
	}
	c.askedLikeAstra(b.last())
	// The backend says how many sessions its users may have.
	c.want("a second device", s.ask("news", "for-bob", "one"), http.StatusOK, "")
	c.want("a second device", s.ask("news", "for-bob", "two"), http.StatusOK, "")

	known := viewer{node: "astra1", stream: "brief1", token: "for-cid", ip: "203.0.113.9", agent: "Box", session: "the known one"}
	c.want("the viewer who will be known", c.do(known.astra(c.edges[0])), http.StatusOK, "")
	b.hang()
	c.away(s, known)
	b.recover()
	judged := 0
	c.eventually(patience, "every worker asks the backend again", func() bool {
		if judged++; s.ask("closed", fmt.Sprint("stranger ", judged), "Box").reason != "refused" {
			judged = 0
		}
		return judged == 10 // in a row
	})
	for _, r := range c.rows(pgstore.DecisionFilter{User: "cid"}) {
		if r.Outcome != "allow" {
			t.Errorf("the known viewer was refused: %s", r.Reason)
		}
	}
}

// askedLikeAstra holds a question against Astra's own.
func (c *cluster) askedLikeAstra(r *http.Request) {
	c.t.Helper()
	if r.Method != http.MethodGet || r.URL.Path != "/check" || r.URL.RawQuery != "key=K&token=%2Bstranger%2B" || r.UserAgent() != "Astra" {
		c.t.Errorf("the backend was asked %s %s by %s", r.Method, r.URL, r.UserAgent())
	}
	got := map[string]string{}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-") {
			got[name] = strings.Join(values, " and ")
		}
	}
	want := map[string]string{
		"X-Session-Id": "number 2", "X-Channel-Id": "news", "X-Real-Ip": "203.0.113.9",
		"X-Real-Path": "/play/news/index.m3u8", "X-Real-Ua": "Box", "X-Real-Host": "",
	}
	if !maps.Equal(got, want) {
		c.t.Errorf("the backend got headers %v, want %v", got, want)
	}
}

// away asks while the backend hangs: each rule's fail mode answers, within the caller's budget.
func (c *cluster) away(s *subscriber, known viewer) {
	t := c.t
	begin := time.Now()
	for time.Since(begin) < 2*time.Second { // twice the lease
		c.want("a running session", c.do(known.astra(c.edges[0])), http.StatusOK, "")
	}
	c.eventually(patience, "a viewer whom the check allowed lately may open other streams", func() bool {
		return s.ask("brief2", "for-cid", "Box").status == http.StatusOK
	})
	for range 6 { // past the failures that open both breakers
		for _, try := range []struct {
			stream, token string
			status        int
		}{
			{"news", "for-zoe", 403}, {"closed", "for-ann", 403}, {"open", "for-zoe", 200},
			{"strict", "for-ann", 403}, {"lax", "for-zoe", 200}, // the check's own word goes before the rule's
		} {
			a := s.ask(try.stream, try.token, fmt.Sprint("device ", s.session))
			c.want(try.stream+" while the backend is away", a, try.status, "")
			if try.status == http.StatusForbidden && a.reason != "unavailable" {
				t.Errorf("%s: refused because of %s, want unavailable", try.stream, a.reason)
			}
			if a.took > 3*time.Second {
				t.Errorf("%s: answered after %v, the budget is 3 s", try.stream, a.took)
			}
		}
	}
	rows := c.rows(pgstore.DecisionFilter{Stream: "brief2"})
	if len(rows) == 0 || rows[0].Reason != "grace" {
		t.Errorf("rows of the known viewer on another stream: %+v, want grace", rows)
	}
}
