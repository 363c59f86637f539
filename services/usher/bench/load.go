package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// threads drive the connections, as many as wrk would be given on the two cores.
	threads = 2
	// patience is how long an answer may take before its connection counts as an error.
	patience = 5 * time.Second
	maxSize  = 4096
)

var errTooLong = errors.New("an answer is longer than 4 kB")

// verdict is what an answer means to a path.
type verdict uint8

const (
	good    verdict = iota
	refused         // a no that the path expects now and then, such as a full limit
	wrong           // an answer that must not be
)

// tally is what a closed loop saw within the measured time.
type tally struct {
	done, refused, wrong int
	first                string // the first wrong answer or error, in words
	latency              []uint32
}

func (t *tally) add(o *tally) {
	t.done, t.refused, t.wrong = t.done+o.done, t.refused+o.refused, t.wrong+o.wrong
	t.latency = append(t.latency, o.latency...)
	if t.first == "" {
		t.first = o.first
	}
}

func (t *tally) fail(format string, args ...any) {
	t.wrong++
	if t.first == "" {
		t.first = fmt.Sprintf(format, args...)
	}
}

// percentile of the latencies, which must be sorted.
func (t *tally) percentile(p float64) time.Duration {
	if len(t.latency) == 0 {
		return 0
	}
	at := min(int(float64(len(t.latency))*p), len(t.latency)-1)
	return time.Duration(t.latency[at]) * time.Microsecond
}

// httpLoad is a closed loop over HTTP/1.1: each connection sends its next request when it
// has read the answer to the last. It shares the cores with what it measures, so it does
// as little as it can: requests are made beforehand, connections are driven by epoll
// without a goroutine each, and of an answer only status, length and one header are read.
type httpLoad struct {
	addr  netip.AddrPort
	conns int
	// next is the request to send; it is called from several threads.
	next func() []byte
	// judge reads an answer's status and header block.
	judge func(status int, head []byte) verdict
	// most ends the load after so many requests, 0 for never.
	most  int
	given atomic.Int64
}

// run loads from now until end and counts answers that came after start.
func (l *httpLoad) run(ctx context.Context, start, end time.Time) (tally, error) {
	var wg sync.WaitGroup
	parts := make([]tally, min(threads, l.conns))
	errs := make([]error, len(parts))
	for i := range parts {
		conns := l.conns / len(parts)
		if i < l.conns%len(parts) {
			conns++
		}
		wg.Go(func() {
			d := driver{load: l, tally: &parts[i], start: start, end: end}
			errs[i] = d.run(ctx, conns)
		})
	}
	wg.Wait()
	var all tally
	for i := range parts {
		all.add(&parts[i])
	}
	slices.Sort(all.latency)
	return all, errors.Join(errs...)
}

// driver is one thread with its share of the connections.
type driver struct {
	load       *httpLoad
	tally      *tally
	start, end time.Time
	poll       int
	conns      map[int32]*peer
}

// peer is one connection with at most one request in flight.
type peer struct {
	fd   int
	sent time.Time
	buf  [maxSize]byte
	have int
}

func (d *driver) run(ctx context.Context, conns int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if d.poll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	defer func() { _ = syscall.Close(d.poll) }() // nothing is kept in it
	d.conns = make(map[int32]*peer, conns)
	defer func() {
		for _, p := range d.conns {
			_ = syscall.Close(p.fd) // everything was read, or is given up
		}
	}()
	d.tally.latency = make([]uint32, 0, 1<<18)
	for range conns {
		if err := d.open(); err != nil {
			return err
		}
	}
	return d.loop(ctx)
}

// open connects one more peer and sends its first request.
func (d *driver) open() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	p := &peer{fd: fd}
	d.conns[int32(fd)] = p
	to := &syscall.SockaddrInet4{Port: int(d.load.addr.Port()), Addr: d.load.addr.Addr().As4()}
	err = errors.Join(
		syscall.Connect(fd, to),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.SetNonblock(fd, true),
		syscall.EpollCtl(d.poll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}),
	)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", d.load.addr, err)
	}
	return d.ask(p, time.Now())
}

func (d *driver) loop(ctx context.Context) error {
	events := make([]syscall.EpollEvent, 64)
	for len(d.conns) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := syscall.EpollWait(d.poll, events, 100)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if p := d.conns[e.Fd]; p != nil {
				d.ready(p)
			}
		}
		if n == 0 {
			d.giveUp()
		}
	}
	return nil
}

// ready takes what has come. A connection that breaks is counted and opened again.
func (d *driver) ready(p *peer) {
	err := d.read(p)
	if err == nil {
		return
	}
	d.tally.fail("%v", err)
	d.drop(p)
	if time.Now().Before(d.end) {
		if err := d.open(); err != nil {
			d.tally.fail("%v", err)
		}
	}
}

func (d *driver) drop(p *peer) {
	delete(d.conns, int32(p.fd))
	_ = syscall.Close(p.fd) // given up
}

// giveUp counts and drops those whose answer is overdue.
func (d *driver) giveUp() {
	for _, p := range d.conns {
		if time.Since(p.sent) > patience {
			d.tally.fail("no answer within %s", patience)
			d.drop(p)
		}
	}
}

// ask sends the next request. A request fits the socket's buffer, which is empty then.
func (d *driver) ask(p *peer, now time.Time) error {
	if l := d.load; l.most > 0 && l.given.Add(1) > int64(l.most) {
		d.drop(p)
		return nil
	}
	req := d.load.next()
	p.sent, p.have = now, 0
	n, err := syscall.Write(p.fd, req)
	if err != nil || n != len(req) {
		return fmt.Errorf("sending a request: %d of %d bytes: %w", n, len(req), err)
	}
	return nil
}

func (d *driver) read(p *peer) error {
	for {
		if p.have == len(p.buf) {
			return errTooLong
		}
		n, err := syscall.Read(p.fd, p.buf[p.have:])
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			return nil
		case err != nil:
			return fmt.Errorf("reading an answer: %w", err)
		case n == 0:
			return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
		}
		p.have += n
		whole, err := d.take(p)
		if err != nil || whole {
			return err
		}
	}
}

// take looks whether the answer is whole; then it counts it and asks again, until the end.
func (d *driver) take(p *peer) (bool, error) {
	end := bytes.Index(p.buf[:p.have], []byte("\r\n\r\n"))
	if end < 0 {
		return false, nil
	}
	head := p.buf[:end+2]
	if len(head) < 15 || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) {
		return false, fmt.Errorf("not an HTTP answer: %.20q", head)
	}
	if p.have < end+4+length(head) {
		return false, nil
	}
	now := time.Now()
	status := int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0')
	if now.After(d.start) && now.Before(d.end) {
		d.count(p, status, head, now)
	}
	if now.After(d.end) {
		d.drop(p)
		return true, nil
	}
	return true, d.ask(p, now)
}

func (d *driver) count(p *peer, status int, head []byte, now time.Time) {
	switch d.load.judge(status, head) {
	case refused:
		d.tally.refused++
	case wrong:
		d.tally.fail("answer %.300q", head)
		return
	}
	d.tally.done++
	d.tally.latency = append(d.tally.latency, uint32(now.Sub(p.sent).Microseconds()))
}

// length is the answer's Content-Length, 0 if it has none.
func length(head []byte) int {
	value := header(head, "Content-Length")
	n := 0
	for _, c := range value {
		n = n*10 + int(c-'0')
	}
	return n
}

// header is the value of a header as Go servers write it, nil if it is not there.
func header(head []byte, name string) []byte {
	for rest := head; ; {
		at := bytes.Index(rest, []byte(name))
		if at < 0 {
			return nil
		}
		value, ok := bytes.CutPrefix(rest[at+len(name):], []byte(": "))
		if ok && at > 1 && rest[at-1] == '\n' {
			line, _, _ := bytes.Cut(value, []byte("\r"))
			return line
		}
		rest = rest[at+len(name):]
	}
}

// addrPort is the address of a local listener.
func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
