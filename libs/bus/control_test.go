package bus_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/bus"
	"usher.internal/libs/testkit"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

func kill(n int) *usherv1.Control {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id[8:], uint64(n)) //nolint:gosec // small numbers
	return &usherv1.Control{Kind: "kill", SessionId: id, Reason: "killed", AtUnixMs: int64(n) + 1}
}

func number(m *usherv1.Control) int {
	return int(binary.BigEndian.Uint64(m.GetSessionId()[8:])) //nolint:gosec // small numbers
}

// publishAll publishes until it is stored, as the outbox does.
func publishAll(t *testing.T, c *bus.Conn, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		eventually(t, 20*time.Second, "control is stored", func() bool {
			_, err := c.PublishControl(within(t, 2*time.Second), kill(n))
			return err == nil
		})
	}
}

// follower records what FollowControl tells.
type recorded struct {
	mu    sync.Mutex
	seen  map[int]int
	order []uint64
	tick  uint64
	at    time.Time
}

func follow(t *testing.T, c *bus.Conn) *recorded {
	t.Helper()
	r := &recorded{seen: make(map[int]int)}
	background(t, func(ctx context.Context) error {
		return c.FollowControl(ctx, func(seq uint64, m *usherv1.Control) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if m.GetDirective() != nil {
				return
			}
			r.seen[number(m)]++
			r.order = append(r.order, seq)
		}, func(last uint64, at time.Time) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.tick, r.at = last, at
		})
	})
	return r
}

func (r *recorded) has(from, to int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := from; n < to; n++ {
		if r.seen[n] == 0 {
			return false
		}
	}
	return true
}

func (r *recorded) ticked() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tick
}

func TestControlIsReplayedThenFollowed(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	publishAll(t, c, 0, 10)
	again, err := c.PublishControl(within(t, time.Second), kill(3))
	if err != nil || again != 4 {
		t.Errorf("publishing again = %d, %v, want the old sequence 4", again, err)
	}
	r := follow(t, connected(t, s, edge))
	eventually(t, 5*time.Second, "replay", func() bool { return r.has(0, 10) })
	begin := time.Now()
	publishAll(t, c, 10, 20)
	eventually(t, time.Second, "news", func() bool { return r.has(10, 20) })
	if d := time.Since(begin); d > 500*time.Millisecond {
		t.Errorf("ten messages took %v", d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, seq := range r.order {
		if seq != uint64(i+1) { //nolint:gosec // small
			t.Fatalf("order = %v, want 1..20 once each", r.order)
		}
	}
}

func TestOnlyTheLastOfASubjectIsKept(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	for i := range 3 {
		m := kill(7)
		m.AtUnixMs, m.BarMs = int64(i), int64(100+i)
		if _, err := c.PublishControl(within(t, time.Second), m); err != nil {
			t.Fatal(err)
		}
	}
	// Without a session the message is about whom it names.
	for _, user := range []string{"a", "b", "a"} {
		if _, err := c.PublishControl(within(t, time.Second), &usherv1.Control{Kind: "evict", Realm: "main", User: user, AtUnixMs: time.Now().UnixNano()}); err != nil {
			t.Fatal(err)
		}
	}
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo(names.ControlStream)
	if err != nil || info.State.Msgs != 3 || info.State.LastSeq != 6 {
		t.Errorf("stream holds %d up to %d, %v, want 3 up to 6", info.State.Msgs, info.State.LastSeq, err)
	}
}

func TestControlHasNoGapOverServerRestarts(t *testing.T) {
	t.Parallel()
	srv := newRestartable(t)
	c := connected(t, srv.s, "w1")
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	r := follow(t, connected(t, srv.s, edge))
	publishAll(t, c, 0, 50)
	for i := 1; i <= 2; i++ {
		srv.restart()
		publishAll(t, c, 50*i, 50*(i+1))
	}
	eventually(t, 10*time.Second, "all of them", func() bool { return r.has(0, 150) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < len(r.order); i++ {
		if r.order[i] <= r.order[i-1] {
			t.Fatalf("sequence %d after %d", r.order[i], r.order[i-1])
		}
	}
}

func TestControlGoesOnInAStreamMadeAnew(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	r := follow(t, connected(t, s, edge))
	publishAll(t, c, 0, 20)
	eventually(t, 5*time.Second, "first life", func() bool { return r.has(0, 20) })
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(names.ControlStream); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureStreams(within(t, 10*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	publishAll(t, c, 100, 105) // sequences 1 to 5: far below what was seen
	eventually(t, 5*time.Second, "second life", func() bool { return r.has(100, 105) })
}

func TestTicksCountOnlyWhenNothingIsMissed(t *testing.T) {
	t.Parallel()

	t.Run("an up-to-date follower hears each tick", func(t *testing.T) {
		t.Parallel()
		s, c := withStreams(t)
		publishAll(t, c, 0, 5)
		r := follow(t, connected(t, s, edge))
		eventually(t, 5*time.Second, "a tick with the last sequence", func() bool {
			if err := c.Tick(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			return r.ticked() == 5
		})
	})

	t.Run("a follower that lags starts anew and is silent meanwhile", func(t *testing.T) {
		t.Parallel()
		s, c := withStreams(t)
		publishAll(t, c, 0, 5)
		r := follow(t, connected(t, s, edge))
		eventually(t, 5*time.Second, "replay", func() bool { return r.has(0, 5) })
		nc := raw(t, s.ClientURL())
		lie, err := proto.Marshal(&usherv1.Tick{LastSequence: 9})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		eventually(t, 5*time.Second, "time passes", func() bool {
			if err := nc.Publish(names.Tick, lie); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin) > 1500*time.Millisecond
		})
		if r.ticked() != 0 {
			t.Errorf("tick %d was told though its messages never came", r.ticked())
		}
		publishAll(t, c, 5, 9)
		eventually(t, 3*time.Second, "the tick, once its messages came", func() bool {
			if err := c.Tick(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			return r.ticked() == 9
		})
		if !r.has(0, 9) {
			t.Error("a message was missed")
		}
	})

	t.Run("an expired last message doesn't make a follower lag for ever", func(t *testing.T) {
		t.Parallel()
		s, c := withStreams(t)
		publishAll(t, c, 0, 5)
		js, err := raw(t, s.ClientURL()).JetStream()
		if err != nil {
			t.Fatal(err)
		}
		if err := js.PurgeStream(names.ControlStream); err != nil {
			t.Fatal(err)
		}
		r := follow(t, connected(t, s, edge))
		eventually(t, 5*time.Second, "a tick", func() bool {
			if err := c.Tick(within(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			return r.ticked() == 5
		})
	})
}

func TestControlGarbageIsPassedOver(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	r := follow(t, connected(t, s, edge))
	nc := raw(t, s.ClientURL())
	if _, err := nc.Request(names.Control("kill", "junk"), []byte("\xff\xff\xff"), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(names.Tick, []byte("\xff\xff\xff")); err != nil {
		t.Fatal(err)
	}
	publishAll(t, c, 1, 3)
	eventually(t, 5*time.Second, "the good ones", func() bool { return r.has(1, 3) })
}

func TestPublishFaults(t *testing.T) {
	t.Parallel()
	t.Run("no stream", func(t *testing.T) {
		t.Parallel()
		c := connected(t, testkit.NATS(t), "w1")
		if _, err := c.PublishControl(within(t, 3*time.Second), kill(1)); !errors.Is(err, bus.ErrNoStream) {
			t.Errorf("PublishControl = %v, want ErrNoStream", err)
		}
		if err := c.Tick(within(t, 3*time.Second)); !errors.Is(err, bus.ErrNoStream) {
			t.Errorf("Tick = %v, want ErrNoStream", err)
		}
		err := c.Journal(region, edge).Put(within(t, 3*time.Second), "decision", &usherv1.JournalEntry{Id: "1"})
		if !errors.Is(err, bus.ErrNoStream) {
			t.Errorf("Put = %v, want ErrNoStream", err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		t.Parallel()
		c := connect(t, bus.Config{Name: "w1", URL: "nats://" + freeAddr(t)})
		if _, err := c.PublishControl(within(t, 3*time.Second), kill(1)); !errors.Is(err, bus.ErrDisconnected) {
			t.Errorf("PublishControl = %v, want ErrDisconnected", err)
		}
	})
	t.Run("kinds and texts that cannot be", func(t *testing.T) {
		t.Parallel()
		_, c := withStreams(t)
		for _, kind := range []string{"", "a.b", ">"} {
			if _, err := c.PublishControl(within(t, time.Second), &usherv1.Control{Kind: kind}); err == nil {
				t.Errorf("kind %q was published", kind)
			}
		}
		if _, err := c.PublishControl(within(t, time.Second), &usherv1.Control{Kind: "kill", User: "\xff"}); !errors.Is(err, bus.ErrMalformed) {
			t.Errorf("text that is not UTF-8 = %v, want ErrMalformed", err)
		}
	})
}
