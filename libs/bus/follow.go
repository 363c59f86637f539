package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// behindTime is how long the follower may lag behind a tick before it starts anew.
	behindTime = time.Second
	// behindCheck is how often it looks.
	behindCheck = 200 * time.Millisecond
	// controlBatch is how many control messages one pull request asks for.
	controlBatch = 256
	// tickQueue is how many ticks may wait while f works; more are dropped.
	tickQueue = 16
)

// FollowControl calls f for every control message: first, for each subject, the last
// one that the stream still holds, then each new one, in order and without gaps, also
// over reconnects, restarts of the server, and a stream that was created anew (its
// sequences then start again, and all it holds is told). The same message may come
// twice after a fault; applying it twice must change nothing.
//
// onTick is called for a tick once everything up to its sequence has been given to f,
// with the local time at which the tick came: as long as it is called, this process
// misses nothing. f and onTick are called one at a time and must not block for long.
// It returns nil when ctx ends, and an error only if it cannot start.
func (c *Conn) FollowControl(ctx context.Context, f func(seq uint64, m *usherv1.Control), onTick func(last uint64, at time.Time)) error {
	fw := &follower{c: c, f: f, onTick: onTick, ticks: make(chan tick, tickQueue)}
	sub, err := c.nc.Subscribe(names.Tick, fw.hear)
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", names.Tick, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
	c.keep(ctx, "control", fw.follow)
	return nil
}

// keep runs do again and again until ctx ends, waiting longer while it fails at once.
func (c *Conn) keep(ctx context.Context, kind string, do func(ctx context.Context, opened func()) error) {
	var b backoff
	var said seldom
	for {
		err := do(ctx, b.reset)
		if ctx.Err() != nil {
			return
		}
		c.metrics.restarts.WithLabelValues(kind).Inc()
		level := slog.LevelDebug
		if !errors.Is(err, ErrDisconnected) && said.allow() {
			level = slog.LevelWarn
		}
		c.log.Log(ctx, level, "reader starts anew", slog.String(telemetry.Kind, kind), slog.Any(telemetry.Error, err))
		if !b.wait(ctx) {
			return
		}
	}
}

// follower is the state of one FollowControl over all its tails. Only the goroutine
// that called FollowControl touches it, but for ticks.
type follower struct {
	c      *Conn
	f      func(uint64, *usherv1.Control)
	onTick func(uint64, time.Time)
	ticks  chan tick

	incarnation time.Time
	seen        uint64 // everything up to here was given to f
	target      *tick  // first tick that is ahead of seen, nil if none
}

type tick struct {
	last    uint64
	created int64 // of the stream, microseconds; 0 unknown
	at      time.Time
}

// hear is the callback of the tick's subscription.
func (fw *follower) hear(msg *nats.Msg) {
	m := new(usherv1.Tick)
	if err := proto.Unmarshal(msg.Data, m); err != nil {
		return // without ticks the edge counts itself as cut off, and says so
	}
	select {
	case fw.ticks <- tick{last: m.GetLastSequence(), created: m.GetCreatedUnixUs(), at: time.Now()}:
	default:
	}
}

func (fw *follower) follow(ctx context.Context, opened func()) error {
	t, err := fw.c.openTail(ctx, opening{js: fw.c.hub, stream: names.ControlStream, batch: controlBatch, start: fw.start})
	if err != nil {
		return err
	}
	defer t.close()
	opened()
	fw.target = nil
	if t.pending == 0 {
		fw.reached(t.last)
	}
	check := time.NewTicker(behindCheck)
	defer check.Stop()
	for {
		select {
		case e, ok := <-t.out:
			if !ok {
				return t.err
			}
			fw.give(ctx, e)
			if e.pending == 0 {
				// What lies between was replaced or has expired.
				fw.reached(max(e.seq, t.last))
			}
		case k := <-fw.ticks:
			fw.tick(k)
		case <-check.C:
			if fw.target != nil && time.Since(fw.target.at) > behindTime {
				return errBehind
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// start goes on behind what was seen, or at the beginning of another stream.
func (fw *follower) start(_ context.Context, st jetstream.Stream) (uint64, error) {
	info := st.CachedInfo()
	if incarnation := incarnationOf(info); !incarnation.Equal(fw.incarnation) {
		fw.incarnation, fw.seen = incarnation, 0
	}
	// A server that lost its latest writes gives their numbers to others.
	fw.seen = min(fw.seen, info.State.LastSeq)
	return fw.seen + 1, nil
}

func (fw *follower) give(ctx context.Context, e entry) {
	m := new(usherv1.Control)
	if err := proto.Unmarshal(e.Data(), m); err != nil {
		fw.c.log.ErrorContext(ctx, "malformed control message",
			slog.Uint64(telemetry.Sequence, e.seq), slog.Any(telemetry.Error, err))
	} else {
		fw.f(e.seq, m)
	}
	fw.reached(e.seq)
}

func (fw *follower) tick(k tick) {
	if k.last <= fw.seen && fw.mine(k) {
		fw.onTick(k.last, k.at)
		return
	}
	if fw.target == nil {
		fw.target = &k
	}
}

// reached notes that everything up to seq was given to f.
func (fw *follower) reached(seq uint64) {
	fw.seen = max(fw.seen, seq)
	if k := fw.target; k != nil && k.last <= fw.seen && fw.mine(*k) {
		fw.target = nil
		fw.onTick(k.last, k.at)
	}
}

// mine says whether a tick speaks of the stream that is being followed.
func (fw *follower) mine(k tick) bool {
	return k.created == 0 || k.created == fw.incarnation.UnixMicro()
}
