package viewing_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/config"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/token/securetoken"
)

// viewer is one who plays, as his streaming server describes him to an edge.
type viewer struct {
	node, stream, token, ip, agent string
	// session is Astra's number of him.
	session string
	// file is what he fetches of the stream, through a forward-auth proxy.
	file string
}

// astra is the question that Astra's backend type "HTTP Request" puts to the edge.
func (v viewer) astra(base string) *http.Request {
	r := get(base + "/v1/astra/" + v.node + "/check" + query(v.token))
	r.Header["X-Session-ID"] = []string{v.session} // in Astra's own spelling
	r.Header["X-Channel-ID"] = []string{v.stream}
	r.Header["X-Real-IP"] = []string{v.ip}
	r.Header["X-Real-Path"] = []string{"/play/" + v.stream + "/index.m3u8"}
	r.Header["X-Real-UA"] = []string{v.agent}
	return r
}

// nginx is the question that nginx puts with the snippet of the edge's README.
func (v viewer) nginx(base string) *http.Request {
	file := v.file
	if file == "" {
		file = "index.m3u8"
	}
	r := get(base + "/v1/nginx/" + v.node)
	r.Header.Set("X-Original-URI", "/hls/"+v.stream+"/"+file+query(v.token))
	r.Header.Set("X-Original-Method", http.MethodGet)
	r.Header.Set("X-Real-IP", v.ip)
	r.Header.Set("User-Agent", v.agent)
	return r
}

func get(url string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return r
}

func query(token string) string {
	if token == "" {
		return ""
	}
	return "?token=" + url.QueryEscape(token)
}

// answer is what an edge answered.
type answer struct {
	status   int
	reason   string
	decision uuid.UUID
	header   http.Header
	took     time.Duration
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.reason) }

// do puts one question. An edge that does not answer fails the test.
func (c *cluster) do(r *http.Request) answer {
	c.t.Helper()
	begin := time.Now()
	res, err := c.client.Do(r)
	if err != nil {
		c.t.Errorf("no answer: %v", err)
		return answer{}
	}
	defer func() { _ = res.Body.Close() }() // it was read
	_, err = io.Copy(io.Discard, res.Body)
	if err != nil {
		c.t.Errorf("half an answer: %v", err)
	}
	a := answer{status: res.StatusCode, reason: res.Header.Get("X-Usher-Reason"), header: res.Header, took: time.Since(begin)}
	if id := res.Header.Get("X-Usher-Decision"); id != "" {
		a.decision, err = uuid.Parse(id)
		if err != nil {
			c.t.Errorf("X-Usher-Decision is %q, want an id", id)
		}
	}
	return a
}

// together puts all questions at the same moment and returns their answers in order.
func (c *cluster) together(questions []*http.Request) []answer {
	answers := make([]answer, len(questions))
	start := make(chan struct{})
	var asking sync.WaitGroup
	for i, q := range questions {
		asking.Go(func() {
			<-start
			answers[i] = c.do(q)
		})
	}
	close(start)
	asking.Wait()
	return answers
}

// want fails the test when the answer is another; reason counts where it is not "".
func (c *cluster) want(what string, got answer, status int, reason string) {
	c.t.Helper()
	if got.status != status || reason != "" && got.reason != reason {
		c.t.Errorf("%s: answered %v, want %d %s", what, got, status, reason)
	}
}

// rows are the decisions that match the filter.
func (c *cluster) rows(f pgstore.DecisionFilter) []pgstore.DecisionRow {
	c.t.Helper()
	f.Limit = 100_000
	rows, err := c.store.Decisions(context.Background(), f)
	must(c.t, err)
	return rows
}

// live are the sessions that hold a seat, and those that ended if the filter asks for them.
func (c *cluster) live(f pgstore.SessionFilter) []pgstore.SessionRow {
	c.t.Helper()
	f.Limit = 100_000
	rows, err := c.store.Sessions(context.Background(), f)
	must(c.t, err)
	return rows
}

// sign makes a token as the portal does, for a user on a stream from anywhere: always the same,
// as long as he does not leave his page.
func (c *cluster) sign(stream, user string) string {
	c.t.Helper()
	return c.signFor(stream, user, netip.Addr{}, false)
}

// signFor makes a token that is bound to the viewer's address where checkIP says so.
func (c *cluster) signFor(stream, user string, ip netip.Addr, checkIP bool) string {
	c.t.Helper()
	ref, err := config.ParseSecret("file:" + c.secretFile)
	must(c.t, err)
	o := &securetoken.Options{Secret: ref, Bind: "stream", CheckIP: checkIP, SaltLength: saltLength}
	token, err := securetoken.Sign(o, securetoken.Ticket{
		Stream: stream, User: user, IP: ip, Salt: strings.Repeat("s", saltLength),
		Start: c.began.Add(-time.Hour), End: c.began.Add(time.Hour),
	})
	must(c.t, err)
	return token
}

// byID finds rows by their id and fails the test when one stands there twice.
func byID(t testing.TB, rows []pgstore.DecisionRow) map[uuid.UUID]pgstore.DecisionRow {
	t.Helper()
	found := make(map[uuid.UUID]pgstore.DecisionRow, len(rows))
	for _, r := range rows {
		if _, twice := found[r.ID]; twice {
			t.Errorf("decision %s has two rows", r.ID)
		}
		found[r.ID] = r
	}
	return found
}
