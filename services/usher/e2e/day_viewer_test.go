//go:build day

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usher.internal/libs/testkit/streamer"
)

// channels are how many each kind of household can watch, over all nodes.
const channels = 8

// household is one account.
type household struct {
	day    *day
	kind   kind
	user   string
	ip     string // of all its devices
	sharer bool   // more devices than it may use at once
	boxes  []*box

	// twin is when a device of it last opened a stream that it had left or lost a moment before. That
	// it plays no more may be known a bound later: until then both count.
	twin atomic.Pointer[time.Time]

	once    sync.Once
	settled chan struct{} // closed when nobody changes channel any more
}

func (h *household) settle() { h.once.Do(func() { close(h.settled) }) }

func (h *household) twins() {
	now := time.Now()
	h.twin.Store(&now)
	h.day.log.count("opened again what it had left or lost")
}

// excused says whether somebody of the household may be refused although no more of it watch than may.
func (h *household) excused() bool {
	t := h.twin.Load()
	return t != nil && time.Since(*t) < h.day.bound().seat
}

// box is one device and who sits before it.
type box struct {
	home  *household
	agent string
	rng   *rand.Rand

	node   *node
	viewer streamer.Viewer
	conn   *streamer.Conn // nil where it plays HLS
	answer streamer.Answer
	boot   int64
	until  time.Time // on this channel
	on     bool
	last   time.Time // request
	before string    // the stream that played last
}

// watch has all boxes watch until ctx ends; the channel is closed when all have left.
func (d *day) watch(ctx context.Context) <-chan struct{} {
	var all sync.WaitGroup
	for _, h := range d.homes {
		for _, b := range h.boxes {
			all.Go(func() { b.watch(ctx) })
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); all.Wait() }()
	return done
}

func (b *box) watch(ctx context.Context) {
	d := b.home.day
	b.until = time.Now()
	if !b.wait(ctx, time.Duration(b.rng.Int64N(int64(d.zap)))) { // not all at once
		return
	}
	for {
		b.step()
		if !b.wait(ctx, d.pace*3/4+time.Duration(b.rng.Int64N(int64(d.pace)/2))) {
			if b.conn != nil {
				b.conn.Close()
			}
			return
		}
	}
}

func (b *box) wait(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// step is the next thing a device does: play on, zap, switch off or on again.
func (b *box) step() {
	settled := false
	select {
	case <-b.home.settled:
		settled = true
	default:
	}
	switch {
	case settled && !b.on && b.home.sharer && time.Now().Before(b.until): // gave up for now
	case settled && b.on, time.Now().Before(b.until) && b.on:
		b.play()
	case time.Now().Before(b.until): // off
	case b.on && b.rng.IntN(5) == 0 && !settled:
		b.off(b.stay() / 2)
	default:
		b.zap()
	}
}

// stay is how long somebody stays on a channel.
func (b *box) stay() time.Duration {
	mean := float64(b.home.day.zap)
	return time.Duration(mean/4 + b.rng.ExpFloat64()*mean*3/4)
}

func (b *box) off(pause time.Duration) {
	if b.conn != nil {
		b.conn.Close()
	}
	b.on, b.conn, b.until = false, nil, time.Now().Add(pause)
}

// zap opens another channel before the old one is left, as boxes do.
func (b *box) zap() {
	d := b.home.day
	old, oldNode, oldConn, was := b.viewer, b.node, b.conn, b.on
	b.node = d.nodes[b.rng.IntN(len(d.nodes))]
	stream := fmt.Sprintf("%s-%d", b.home.kind.prefix, b.rng.IntN(channels))
	for stream == old.Stream && (was || b.rng.IntN(4) > 0) {
		stream = fmt.Sprintf("%s-%d", b.home.kind.prefix, b.rng.IntN(channels))
	}
	b.viewer = streamer.Viewer{Stream: stream, Token: d.sign(stream, b.home.user), IP: b.home.ip, UserAgent: b.agent}
	b.open()
	if oldConn != nil {
		oldConn.Close()
	} else if was && b.rng.IntN(2) == 0 {
		oldNode.Fetch(old) // a segment that was begun
	}
}

// open begins to play what viewer says.
func (b *box) open() {
	d := b.home.day
	b.on, b.conn = false, nil
	b.boot, b.last = b.node.boots.value(), time.Now()
	if b.viewer.Stream == b.before {
		b.home.twins()
	}
	if b.rng.IntN(3) == 0 {
		b.conn, b.answer = b.node.Connect(b.viewer)
	} else {
		b.answer = b.node.Fetch(b.viewer)
	}
	switch {
	case b.answer.OK():
		b.on, b.until, b.before = true, time.Now().Add(b.stay()), b.viewer.Stream
		d.log.count("opened")
		if b.answer.Unknown {
			d.log.count("let in by the node alone")
			b.unknown()
		}
	case b.answer.Status == 0:
		d.log.count("nobody there")
		b.until = time.Now()
	default:
		b.refused("opening")
	}
}

// play fetches the next segment or looks whether the connection lasts.
func (b *box) play() {
	d := b.home.day
	now := time.Now()
	gap := now.Sub(b.last)
	b.last = now
	if b.conn != nil {
		if b.conn.Lasts() {
			return
		}
		if reason := b.conn.Reason(); reason != "" {
			b.cut(reason)
		}
		b.open()
		return
	}
	if b.boot != b.node.boots.value() {
		b.home.twins()
	}
	a := b.node.Fetch(b.viewer)
	switch {
	case a.Status == 0:
		d.log.count("nobody there")
	case !a.OK():
		b.answer = a
		b.refused("playing")
	default:
		if a.Session != b.answer.Session && b.boot == b.node.boots.value() && gap < d.idle {
			b.cut("a new session while playing")
		}
		b.answer, b.boot = a, b.node.boots.value()
	}
}

// cut is a server that ended what played.
func (b *box) cut(reason string) {
	d := b.home.day
	d.log.count("cut: " + reason)
	if !b.home.sharer && !b.home.excused() {
		d.log.violation("a viewer within his right was cut (%s): %s on %s of %s, session %s", reason, b.agent, b.viewer.Stream, b.node.name, b.answer.Session)
	}
}

// refused looks at a refusal: whoever plays within his right may only be refused by a node whose
// edge is away, and comes back.
func (b *box) refused(when string) {
	d := b.home.day
	b.on, b.conn, b.until = false, nil, time.Now()
	switch {
	case b.answer.Unknown:
		d.log.count("refused by the node alone")
		b.unknown()
	case b.home.sharer:
		d.log.count("sharer refused " + when)
		b.until = time.Now().Add(b.stay() / 2)
	case b.home.excused():
		d.log.count("refused while a session that had ended was not known to have")
	default:
		d.log.deny("a viewer within his right was refused (%d) %s: %s of %s on %s of %s, session %s",
			b.answer.Status, when, b.agent, b.home.user, b.viewer.Stream, b.node.name, b.answer.Session)
	}
}

// unknown: a node may only decide alone while its edge is away.
func (b *box) unknown() {
	d := b.home.day
	if !d.edges[b.node.edge].down.covers(b.last, time.Now()) {
		d.log.violation("nobody could tell %s about %s although edge %s was there", b.node.name, b.viewer.Stream, b.node.edge)
	}
}

// counter counts what several goroutines do.
type counter struct{ n atomic.Int64 }

func (c *counter) add()         { c.n.Add(1) }
func (c *counter) value() int64 { return c.n.Load() }

// stretches are stretches of time; the last may still last.
type stretches struct {
	mu  sync.Mutex // guards all
	all [][2]time.Time
}

func (s *stretches) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, [2]time.Time{time.Now()})
}

func (s *stretches) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[len(s.all)-1][1] = time.Now()
}

// covers says whether the two meet, with a moment for connections that break.
func (s *stretches) covers(from, to time.Time) bool {
	const moment = 200 * time.Millisecond
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if to.After(one[0].Add(-moment)) && (one[1].IsZero() || from.Before(one[1].Add(moment))) {
			return true
		}
	}
	return false
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
