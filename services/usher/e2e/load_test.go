package e2e_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Budgets of the two dialects, and what the way there and back may add to them. What the machine
// is busy with beside us is measured (lag) and comes on top.
const (
	astraBudget = 800 * time.Millisecond
	nginxBudget = 2 * time.Second
	slack       = 300 * time.Millisecond
)

const (
	loadUsers   = 60
	loadStreams = 5 // of each rule
)

// loadRules have a rule for each fail mode and for each mode of a limit.
const loadRules = `
streams:
  - {match: "open-*", auth: site, on_unavailable: allow}
  - {match: "live-*", auth: site, on_unavailable: deny, limit: {sessions: 3, by: user, mode: refuse}}
  - {match: "**", auth: site, on_unavailable: grace, limit: {sessions: 2, by: user, mode: evict_oldest}}
`

// reply is what a caller of the load was answered.
type reply struct {
	caller   string // astra or nginx
	asked    time.Time
	took     time.Duration
	status   int
	decision uuid.UUID
	reason   string // "" when the viewer was let in
	err      error
}

// outcome is the answer's, as its row should say it.
func (r *reply) outcome() string {
	if r.status == http.StatusOK {
		return "allow"
	}
	return "deny"
}

// load is many viewers who play, zap and come back, each with one question at a time.
type load struct {
	edges   []string // URLs
	viewers int
	pace    time.Duration // mean pause between two questions of a viewer
	seed    uint64
	// calm viewers stay on a stream without a limit, with a token that is good: nobody should
	// ever refuse them.
	calm    bool
	client  *http.Client
	tickets map[string]string // by "stream user"

	mu      sync.Mutex // guards what follows
	replies []reply
	lag     time.Duration // worst answer to a question that an edge refuses alone and at once
}

func newLoad(t *testing.T, seed uint64, viewers int, pace time.Duration, edges ...string) *load {
	t.Helper()
	l := &load{
		edges: edges, viewers: viewers, pace: pace, seed: seed, tickets: make(map[string]string),
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: viewers},
			Timeout:   10 * time.Second,
		},
	}
	t.Cleanup(l.client.CloseIdleConnections)
	sign := signer(t)
	for u := range loadUsers {
		for s := range loadStreams {
			for _, kind := range []string{"open", "live", "film"} {
				user, stream := fmt.Sprintf("user%d", u), fmt.Sprintf("%s-%d", kind, s)
				l.tickets[stream+" "+user] = sign(stream, user)
			}
		}
	}
	return l
}

// run asks until ctx ends; every question that was asked is waited for.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range l.viewers {
		wg.Go(func() {
			v := &viewer{load: l, n: i, home: l.edges[i%len(l.edges)], user: fmt.Sprintf("user%d", i%loadUsers), rng: rand.New(rand.NewPCG(l.seed, uint64(i)))}
			v.play(ctx)
		})
	}
	for _, edge := range l.edges {
		wg.Go(func() { l.measure(ctx, edge) })
	}
	wg.Wait()
}

// measure asks again and again what costs an edge nothing: what it takes is the machine's doing.
func (l *load) measure(ctx context.Context, edge string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		resp, err := l.client.Get(edge + "/v1/astra/nobody")
		if err == nil {
			_ = resp.Body.Close()
		}
		l.mu.Lock()
		l.lag = max(l.lag, time.Since(began))
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// since gives a copy of the answers to what was asked since a point in time.
func (l *load) since(from time.Time) []reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []reply
	for _, r := range l.replies {
		if !r.asked.Before(from) {
			all = append(all, r)
		}
	}
	return all
}

// viewer is one device.
type viewer struct {
	load   *load
	n      int
	user   string
	stream string
	token  string
	home   string // the edge beside the viewer's server
	opened int
	rng    *rand.Rand
}

func (v *viewer) play(ctx context.Context) {
	for ctx.Err() == nil {
		v.open()
		for range 2 + v.rng.IntN(8) {
			if !v.wait(ctx) {
				return
			}
			v.question()
		}
	}
}

func (v *viewer) wait(ctx context.Context) bool {
	t := time.NewTimer(v.load.pace/2 + time.Duration(v.rng.Int64N(int64(v.load.pace))))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// open chooses another stream.
func (v *viewer) open() {
	kinds := []string{"open", "live", "live", "film"}
	if v.load.calm {
		kinds = kinds[:1]
	}
	v.stream = fmt.Sprintf("%s-%d", kinds[v.rng.IntN(len(kinds))], v.rng.IntN(loadStreams))
	v.token = v.load.tickets[v.stream+" "+v.user]
	if !v.load.calm && v.rng.IntN(20) == 0 {
		v.token += "x" // forged
	}
	v.opened++
}

// question asks as Astra for one viewer of three, and as nginx for the others: a playlist or a
// segment.
func (v *viewer) question() {
	var header map[string]string
	caller, path := "nginx", "/v1/nginx/web1"
	address := fmt.Sprintf("10.0.%d.%d", v.n/200, v.n%200+1)
	agent := fmt.Sprintf("player/%d", v.n)
	switch {
	case v.n%3 == 0:
		caller, path = "astra", "/v1/astra/astra1/check?token="+v.token
		header = map[string]string{
			"X-Session-ID": fmt.Sprintf("%d-%d", v.n, v.opened), "X-Channel-ID": v.stream, "X-Real-IP": address,
			"X-Real-Path": "/play/" + v.stream + "/index.m3u8", "X-Real-UA": agent,
		}
	default:
		uri := "/hls/" + v.stream + "/seg1.ts"
		if v.load.calm || v.rng.IntN(2) == 0 {
			uri = "/hls/" + v.stream + "/index.m3u8?token=" + v.token
		}
		header = map[string]string{"X-Original-URI": uri, "X-Real-IP": address, "User-Agent": agent}
	}
	v.load.ask(caller, v.home+path, header)
}

// ask asks and keeps the answer.
func (l *load) ask(caller, url string, header map[string]string) reply {
	r := reply{caller: caller, asked: time.Now()}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err) // a mistake in this file
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := l.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		r.status, r.reason = resp.StatusCode, resp.Header.Get("X-Usher-Reason")
	}
	r.took = time.Since(r.asked)
	if err == nil {
		r.decision, err = uuid.Parse(resp.Header.Get("X-Usher-Decision"))
	}
	r.err = err
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replies = append(l.replies, r)
	return r
}
