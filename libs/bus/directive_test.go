package bus_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
)

// wish is a ban of its own.
func wish(n int) *usherv1.Control {
	id := kill(n).GetSessionId()
	return &usherv1.Control{
		Kind: "ban", AtUnixMs: int64(n) + 1,
		Directive: &usherv1.Directive{Id: id, Kind: "ban", Action: "deny", Node: fmt.Sprint("n", n), AtUnixMs: int64(n) + 1},
	}
}

func revoked(m *usherv1.Control) *usherv1.Control {
	m = proto.CloneOf(m)
	m.AtUnixMs += 1000
	m.Directive.Revoked = true
	return m
}

func directives(t *testing.T, c *bus.Conn) (held []bus.Held) {
	t.Helper()
	if err := c.ReadDirectives(within(t, 5*time.Second), "ban", func(h bus.Held) { held = append(held, h) }); err != nil {
		t.Fatalf("ReadDirectives: %v", err)
	}
	return held
}

func publish(t *testing.T, c *bus.Conn, m *usherv1.Control, want error) {
	t.Helper()
	if err := c.PublishDirective(within(t, 5*time.Second), m); !errors.Is(err, want) {
		t.Errorf("PublishDirective = %v, want %v", err, want)
	}
}

func TestARevocationIsFinal(t *testing.T) {
	t.Parallel()
	_, c := withStreams(t)
	m := wish(1)
	publish(t, c, m, nil)
	publish(t, c, m, nil) // told twice
	publish(t, c, revoked(m), nil)
	m.AtUnixMs += 5000 // by a database that knows no better
	publish(t, c, m, bus.ErrRevoked)
	if err := c.RestateDirective(within(t, 5*time.Second), m, bus.Held{}); !errors.Is(err, bus.ErrRevoked) {
		t.Errorf("RestateDirective by one who saw nothing = %v, want %v", err, bus.ErrRevoked)
	}
	publish(t, c, revoked(m), nil)
	held := directives(t, c)
	if len(held) != 1 || !held[0].Control.GetDirective().GetRevoked() || time.Since(held[0].At) > time.Minute || held[0].Sequence == 0 {
		t.Errorf("the stream holds %+v, want the revocation of just now", held)
	}
}

func TestPublishersAtOnceLeaveTheRevocation(t *testing.T) {
	t.Parallel()
	_, c := withStreams(t)
	var wg sync.WaitGroup
	for n := range 20 {
		m := wish(n)
		for i := range 4 {
			wg.Go(func() {
				given := proto.CloneOf(m)
				given.AtUnixMs += int64(i) // else the stream would drop them as told already
				if err := c.PublishDirective(within(t, 20*time.Second), given); err != nil && !errors.Is(err, bus.ErrRevoked) {
					t.Errorf("PublishDirective: %v", err)
				}
			})
		}
		wg.Go(func() {
			if err := c.PublishDirective(within(t, 20*time.Second), revoked(m)); err != nil {
				t.Errorf("revoking: %v", err)
			}
		})
	}
	wg.Wait()
	held := directives(t, c)
	for _, h := range held {
		if !h.Control.GetDirective().GetRevoked() {
			t.Errorf("%v came back", h.Control)
		}
	}
	if len(held) != 20 {
		t.Errorf("%d directives held, want 20", len(held))
	}
}

func TestReadDirectivesGivesEachOnce(t *testing.T) {
	t.Parallel()
	_, c := withStreams(t)
	if held := directives(t, c); len(held) != 0 {
		t.Errorf("an empty stream holds %v", held)
	}
	publishAll(t, c, 0, 5) // kills are no directives
	const n = 600          // more than one pull request
	for i := range n {
		if err := c.RestateDirective(within(t, 5*time.Second), wish(i), bus.Held{}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, h := range directives(t, c) {
		seen[h.Control.GetDirective().GetNode()] = true
		if err := c.RestateDirective(within(t, 5*time.Second), revoked(h.Control), h); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != n {
		t.Errorf("read %d directives, want %d", len(seen), n)
	}
}
