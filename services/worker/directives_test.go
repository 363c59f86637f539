package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/directive"
	"usher.internal/schemas/proto/usherv1"
)

// orders is a DirectiveStore and a controlFeed.
type orders struct {
	mu     sync.Mutex
	stored []directive.Directive
	fail   error

	messages chan *usherv1.Control
	ticks    chan struct{}
}

func newOrders(stored ...directive.Directive) *orders {
	return &orders{stored: stored, messages: make(chan *usherv1.Control), ticks: make(chan struct{})}
}

func (o *orders) Directives(context.Context) ([]directive.Directive, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stored, o.fail
}

func (o *orders) setFail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = err
}

func (o *orders) FollowControl(ctx context.Context, f func(uint64, *usherv1.Control), onTick func(uint64, time.Time)) error {
	for {
		select {
		case m := <-o.messages:
			f(1, m)
		case <-o.ticks:
			onTick(1, time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

func nodeBan(node string) directive.Directive {
	return directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: directive.Ban, Action: directive.Deny, Node: node, At: time.Now(), Reason: "r", Author: "a",
	}
}

// follow runs d until the returned function is called.
func (d *directives) follow(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (d *directives) bans(node string) bool {
	return d.book.Set().Ban(&directive.Viewer{Node: node}, time.Now()) != nil
}

func (d *directives) unknown() bool {
	select {
	case <-d.known:
		return false
	default:
		return true
	}
}

func TestDirectivesComeFromPostgresAndTheStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		old, over := nodeBan("n1"), nodeBan("n2")
		o := newOrders(old, over)
		d := newDirectives(o, o, slog.New(slog.DiscardHandler))
		stop := d.follow(t)
		synctest.Wait()
		if d.unknown() || !d.bans("n1") || !d.bans("n2") {
			t.Error("what Postgres has is not in force")
		}
		fresh := nodeBan("n3")
		o.messages <- fresh.Control(false, fresh.At)
		o.messages <- over.Control(true, time.Now())
		o.messages <- over.Control(false, over.At) // told late
		o.messages <- &usherv1.Control{Kind: "ban", Directive: &usherv1.Directive{Id: []byte{1}}}
		o.messages <- &usherv1.Control{Kind: "kill"}
		synctest.Wait()
		if !d.bans("n1") || d.bans("n2") || !d.bans("n3") {
			t.Errorf("bans on n1 %v, n2 %v, n3 %v; want n1 and n3", d.bans("n1"), d.bans("n2"), d.bans("n3"))
		}
		stop()
	})
}

func TestWithoutPostgresTheStreamIsEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		old := nodeBan("n1")
		o := newOrders(old)
		o.setFail(errors.New("away"))
		d := newDirectives(o, o, slog.New(slog.DiscardHandler))
		stop := d.follow(t)
		synctest.Wait()
		if !d.unknown() {
			t.Error("nobody has told anything, and it counts as known")
		}
		o.ticks <- struct{}{}
		synctest.Wait()
		if d.unknown() {
			t.Error("the stream has told all it holds, and questions still wait")
		}
		o.setFail(nil)
		time.Sleep(loadRetry)
		synctest.Wait()
		if !d.bans("n1") {
			t.Error("Postgres is back and was not read")
		}
		stop()
	})
}

func TestATickIsNotEnoughWherePostgresCanBeAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOrders()
		d := newDirectives(o, o, slog.New(slog.DiscardHandler))
		d.ticked()
		if !d.unknown() {
			t.Error("an empty stream counts as known before Postgres was read")
		}
		began := time.Now()
		d.wait(t.Context())
		if took := time.Since(began); took != directivesWait {
			t.Errorf("waited %v, want %v", took, directivesWait)
		}
	})
}

func TestEndedDirectivesAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		short := nodeBan("n1")
		short.Until = time.Now().Add(30 * time.Second)
		o := newOrders(short)
		d := newDirectives(o, o, slog.New(slog.DiscardHandler))
		stop := d.follow(t)
		synctest.Wait()
		if !d.bans("n1") {
			t.Error("not in force")
		}
		time.Sleep(31 * time.Second)
		if d.bans("n1") {
			t.Error("in force after its end")
		}
		time.Sleep(directivesSweep)
		synctest.Wait()
		if n := d.book.Set().Len(); n != 0 {
			t.Errorf("%d kept", n)
		}
		stop()
	})
}
