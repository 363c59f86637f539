package testkit

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// dialWithin is for the other end of a relay, which is on this machine.
const dialWithin = 5 * time.Second

// Relay is a link between two programs that can be cut: a TCP address of its own that leads to
// another one. Its methods may be called from any goroutine.
type Relay struct {
	listener net.Listener
	to       string

	mu    sync.Mutex // guards all below
	cond  *sync.Cond // of cut and closed
	cut   bool
	gone  bool
	conns map[net.Conn]struct{}
}

// NewRelay leads from a free port on loopback to the address. It ends with the test.
func NewRelay(t testing.TB, to string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("opening a relay: %v", err)
	}
	r := &Relay{listener: l, to: to, conns: map[net.Conn]struct{}{}}
	r.cond = sync.NewCond(&r.mu)
	var wg sync.WaitGroup
	wg.Go(func() { r.accept(&wg) })
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.gone = true
		r.cond.Broadcast()
		r.mu.Unlock()
		r.Reset()
		wg.Wait()
	})
	return r
}

// Addr is where the relay listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Cut makes a black hole of the link: connections stay, and nothing passes any more.
func (r *Relay) Cut() { r.set(true) }

// Heal lets everything pass again, also what waited.
func (r *Relay) Heal() { r.set(false) }

// Reset ends the connections that stand.
func (r *Relay) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *Relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	r.cond.Broadcast()
}

func (r *Relay) accept(wg *sync.WaitGroup) {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { r.lead(c) })
	}
}

// lead joins a connection with a new one to the other end.
func (r *Relay) lead(from net.Conn) {
	defer r.forget(from)
	if !r.keep(from) || !r.pass() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialWithin)
	defer cancel()
	to, err := new(net.Dialer).DialContext(ctx, "tcp", r.to)
	if err != nil {
		return
	}
	defer r.forget(to)
	if !r.keep(to) {
		return
	}
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() { r.copy(way[0], way[1]); done <- struct{}{} }()
	}
	<-done
	_, _ = from.Close(), to.Close() // ends the other way too
	<-done
}

func (r *Relay) copy(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !r.pass() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until the link stands; false when the relay is gone.
func (r *Relay) pass() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.cut && !r.gone {
		r.cond.Wait()
	}
	return !r.gone
}

func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		r.conns[c] = struct{}{}
	}
	return !r.gone
}

func (r *Relay) forget(c net.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}
