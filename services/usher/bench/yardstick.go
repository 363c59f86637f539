package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"usher.internal/libs/natsd"
)

const echoSubject = "bench.echo"

// yardstick serves what every path is compared with: a net/http handler that does nothing,
// and one that asks a worker which does nothing, over a NATS server in the same process as
// `usher up` has it.
func yardstick(ctx context.Context, _ []string) error {
	return asChild(ctx, func(ctx context.Context, ready func(addresses)) error {
		dir, err := os.MkdirTemp("", "usher-bench-nats-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		server, err := natsd.Start(natsd.Options{Dir: dir, Name: "yardstick"})
		if err != nil {
			return err
		}
		defer server.Stop()
		echo, stop, err := echoHandler(server)
		if err != nil {
			return err
		}
		defer stop()
		noop := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
		var a addresses
		failed := make(chan error, 2)
		for _, h := range []struct {
			handler http.HandlerFunc
			at      func(net.Addr)
		}{
			{noop, func(l net.Addr) { a.HTTP = addrPort(l) }},
			{echo, func(l net.Addr) { a.Echo = addrPort(l) }},
		} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			h.at(l.Addr())
			srv := &http.Server{Handler: h.handler, ReadHeaderTimeout: patience}
			go func() { failed <- srv.Serve(l) }()
		}
		ready(a)
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
}

// echoHandler asks the worker with a message of a question's size and gives back its answer.
func echoHandler(server *natsd.Server) (http.HandlerFunc, func(), error) {
	var conns []*nats.Conn
	stop := func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range 2 {
		c, err := nats.Connect("", nats.InProcessServer(server.InProcess()))
		if err != nil {
			return nil, stop, fmt.Errorf("connecting to NATS: %w", err)
		}
		conns = append(conns, c)
	}
	question, answer := make([]byte, 400), make([]byte, 120)
	_, err := conns[1].QueueSubscribe(echoSubject, "worker", func(m *nats.Msg) { _ = m.Respond(answer) })
	if err = errors.Join(err, conns[1].Flush()); err != nil {
		return nil, stop, err
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		if _, err := conns[0].Request(echoSubject, question, 2*time.Second); err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
	}, stop, nil
}
