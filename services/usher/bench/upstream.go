package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	// upstreamDelay is how long the operator's backend thinks about each question.
	upstreamDelay = 20 * time.Millisecond
	// narrow is a worker's pool so small that the backend's latency, and not the two cores, bounds
	// what a worker can answer: only then more workers can show more.
	narrow = 10
)

// backend is an operator's own subscriber system: it names the user after its delay.
func backend() (net.Addr, func() error, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(upstreamDelay)
		w.Header().Set("X-UserId", r.URL.Query().Get("token"))
		w.WriteHeader(http.StatusOK)
	})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	return l.Addr(), srv.Close, nil
}

// upstreamDirect is the backend itself under the load that upstream-1 gets.
func upstreamDirect() path {
	start := func(context.Context, *lab) (*stage, error) {
		addr, stop, err := backend()
		if err != nil {
			return nil, err
		}
		req := (&viewer{stream: "channel-1", ip: "10.0.0.1"}).ask("index.m3u8?token=u1")
		load := &httpLoad{addr: addrPort(addr), conns: 8, next: func() []byte { return req }, judge: onlyOK}
		return &stage{load: load.run, stop: stop, watch: []watched{{name: "load", pid: os.Getpid()}}}, nil
	}
	return path{name: "backend-8", what: fmt.Sprintf("yardstick: an operator's backend that takes %s, asked directly", upstreamDelay), conns: 8, start: start}
}

// upstream asks about new sessions that the backend decides.
func upstream(workers, pool, conns int) path {
	name := fmt.Sprintf("upstream-%d", conns)
	what := "new session, decided by that backend, 1 worker"
	if pool > 0 {
		name = fmt.Sprintf("upstream-%dx%d", workers, pool)
		what = fmt.Sprintf("the same at saturation, workers that ask %d at a time each: %d", pool, workers)
	}
	start := func(ctx context.Context, l *lab) (*stage, error) {
		addr, stop, err := backend()
		if err != nil {
			return nil, err
		}
		rules := policy(fmt.Sprintf(`{type: http, url: "http://%s/check"}`, addr))
		st, err := l.asking(ctx, name, conns, rules, workers, pool, orFull, func(round, n int) ([]byte, error) {
			v := someone(round, n)
			return v.ask("index.m3u8?token=" + v.user), nil
		})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		end := st.stop
		st.stop = func() error { return errors.Join(end(), stop()) }
		return st, nil
	}
	return path{name: name, what: what, conns: conns, start: start}
}
