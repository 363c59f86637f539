package viewing_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// gate is the network between the services and Postgres. Shut, it drops every connection
// and takes no new one, as a Postgres that has died: its server is shared by all tests.
type gate struct {
	dsn      string // through the gate
	target   string
	listener net.Listener

	mu    sync.Mutex // guards all below
	shut  bool
	conns map[net.Conn]struct{}
	pumps sync.WaitGroup
}

func newGate(t testing.TB, dsn string) *gate {
	t.Helper()
	u, err := url.Parse(dsn)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{target: u.Host, listener: l, conns: map[net.Conn]struct{}{}}
	u.Host = l.Addr().String()
	g.dsn = u.String()
	g.pumps.Go(g.accept)
	t.Cleanup(func() {
		_ = l.Close() // ends accept
		g.Shut()
		g.pumps.Wait()
	})
	return g
}

// Shut drops what is connected. Open lets new connections through again.
func (g *gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for conn := range g.conns {
		_ = conn.Close() // that is the point
	}
	clear(g.conns)
}

// Open ends an outage.
func (g *gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

func (g *gate) accept() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.pumps.Go(func() { g.pass(in) })
	}
}

// pass connects one client with the server until either end hangs up.
func (g *gate) pass(in net.Conn) {
	defer g.drop(in)
	if !g.keep(in) {
		return
	}
	out, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer g.drop(out)
	if !g.keep(out) {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(in, out) // a connection that breaks is what the gate is for
		g.drop(in)
	}()
	_, _ = io.Copy(out, in) // the same
	g.drop(out)
	<-back
}

// keep remembers a connection, unless the gate is shut.
func (g *gate) keep(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.conns[conn] = struct{}{}
	}
	return !g.shut
}

func (g *gate) drop(conn net.Conn) {
	g.mu.Lock()
	delete(g.conns, conn)
	g.mu.Unlock()
	_ = conn.Close() // perhaps twice
}
