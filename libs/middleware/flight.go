package middleware

import (
	"context"
	"errors"
	"sync"
	"time"
)

// flights lets equal questions that are asked at the same time share one call.
type flights struct {
	timeout time.Duration

	mu      sync.Mutex // guards calls and each call's waiting
	calls   map[string]*flight
	running sync.WaitGroup
}

// flight is one shared call.
type flight struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when answer and err stand
	answer  Answer
	err     error
}

// do joins the flight of key, or starts it with call. The call lives by its own
// timeout, not by the first asker's context; it is cancelled when every asker has
// been cancelled. One whose time ran out leaves the call alone, so that the
// breaker learns how it ended.
func (f *flights) do(ctx context.Context, key string, call func(context.Context) (Answer, error)) (Answer, error) {
	f.mu.Lock()
	fl, ok := f.calls[key]
	if ok {
		fl.waiting++
	} else {
		fl = f.start(ctx, key, call)
	}
	f.mu.Unlock()

	select {
	case <-fl.done:
		return fl.answer, fl.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(ctx.Err(), context.Canceled) {
		return Answer{}, ctx.Err()
	}
	if fl.waiting--; fl.waiting == 0 {
		f.forget(key, fl) // a later asker must not join a call that was cancelled
		fl.cancel(errAbandoned)
	}
	return Answer{}, ctx.Err()
}

// start begins a flight. The caller holds mu.
func (f *flights) start(ctx context.Context, key string, call func(context.Context) (Answer, error)) *flight {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	fl := &flight{waiting: 1, cancel: cancel, done: make(chan struct{})}
	f.calls[key] = fl
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		own, stop := context.WithTimeoutCause(own, f.timeout, errTimeout)
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
func (f *flights) forget(key string, fl *flight) {
	if f.calls[key] == fl {
		delete(f.calls, key)
	}
}
