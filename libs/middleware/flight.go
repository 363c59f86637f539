package middleware

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Flights lets equal questions that are asked at the same time share one call. The zero value
// works.
type Flights[T any] struct {
	mu      sync.Mutex // guards calls and each call's waiting
	calls   map[string]*flight[T]
	running sync.WaitGroup
}

// flight is one shared call.
type flight[T any] struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when answer and err stand
	answer  T
	err     error
}

// Do joins the flight of key, or starts it with call. The call lives by its own
// timeout, not by the first asker's context; it is cancelled when every asker has
// been cancelled. One whose time ran out leaves the call alone, so that the
// breaker learns how it ended. The error is the call's, or ctx's own.
func (f *Flights[T]) Do(ctx context.Context, key string, timeout time.Duration, call func(context.Context) (T, error)) (T, error) {
	f.mu.Lock()
	fl, ok := f.calls[key]
	if ok {
		fl.waiting++
	} else {
		fl = f.start(ctx, key, timeout, call)
	}
	f.mu.Unlock()

	select {
	case <-fl.done:
		return fl.answer, fl.err
	case <-ctx.Done():
	}
	var none T
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(ctx.Err(), context.Canceled) {
		return none, ctx.Err()
	}
	if fl.waiting--; fl.waiting == 0 {
		f.forget(key, fl) // a later asker must not join a call that was cancelled
		fl.cancel(errAbandoned)
	}
	return none, ctx.Err()
}

// Wait waits for the calls under way; each ends by its own timeout.
func (f *Flights[T]) Wait() { f.running.Wait() }

// start begins a flight. The caller holds mu.
func (f *Flights[T]) start(ctx context.Context, key string, timeout time.Duration, call func(context.Context) (T, error)) *flight[T] {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	fl := &flight[T]{waiting: 1, cancel: cancel, done: make(chan struct{})}
	if f.calls == nil {
		f.calls = map[string]*flight[T]{}
	}
	f.calls[key] = fl
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		own, stop := context.WithTimeoutCause(own, timeout, errTimeout)
		defer stop()
		fl.answer, fl.err = call(own)
		f.mu.Lock()
		f.forget(key, fl)
		f.mu.Unlock()
		close(fl.done)
		cancel(nil)
	}()
	return fl
}

// forget takes the flight off the list, unless another one has its place already.
// The caller holds mu.
func (f *Flights[T]) forget(key string, fl *flight[T]) {
	if f.calls[key] == fl {
		delete(f.calls, key)
	}
}
