// Package lifecycle starts the tasks of a process, stops them in reverse order, and
// shows over HTTP whether the process is healthy and ready.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"usher.internal/libs/telemetry"
)

// ErrPanic is wrapped by the error of a task that panicked.
var ErrPanic = errors.New("panic")

// nagEvery is how often a stop that takes long names the task it waits for.
const nagEvery = 10 * time.Second

// Task is something that runs until its context ends.
type Task struct {
	// Name stands in logs and errors.
	Name string
	// Run works until ctx ends and then returns, as soon as what it has begun is
	// finished. An error before that stops all tasks; returning nil early ends this
	// task alone.
	Run func(ctx context.Context) error
}

// running is a started task.
type running struct {
	Task
	cancel context.CancelFunc
	done   chan struct{} // closed when Run has returned
	err    error         // readable after done
}

// Run starts the tasks in order and waits until ctx ends, one of them fails, or all
// have returned. Then it stops them from the last to the first: the context of each
// is cancelled only when those after it have returned, so that a task may use
// what earlier ones provide until its end. The error joins those of all tasks; a
// panic is an error. A stop that was asked for is none.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// Cancelling ctx must not reach all tasks at once.
	base := context.WithoutCancel(ctx)
	ended := make(chan error, len(tasks))
	all := make([]*running, 0, len(tasks))
	for _, t := range tasks {
		tctx, cancel := context.WithCancel(base)
		r := &running{Task: t, cancel: cancel, done: make(chan struct{})}
		all = append(all, r)
		log.Debug("task starts", slog.String(telemetry.Task, t.Name))
		go func() {
			defer close(r.done)
			r.err = r.run(tctx, log)
			ended <- r.err
		}()
	}
	wait(ctx, ended, len(tasks))
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		if err := all[i].stop(log); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// wait returns when ctx ends, at the first error, or when n tasks have ended.
func wait(ctx context.Context, ended <-chan error, n int) {
	for ; n > 0; n-- {
		select {
		case err := <-ended:
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *running) run(ctx context.Context, log *slog.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "task panicked", slog.String(telemetry.Task, r.Name),
				slog.Any(telemetry.Panic, p), slog.String(telemetry.Stack, string(debug.Stack())))
			err = fmt.Errorf("%s: %w: %v", r.Name, ErrPanic, p)
		}
	}()
	err = r.Run(ctx)
	switch {
	case err == nil:
		log.Debug("task ended", slog.String(telemetry.Task, r.Name))
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil // that is how it was told to stop
	}
	log.ErrorContext(ctx, "task failed", slog.String(telemetry.Task, r.Name), slog.Any(telemetry.Error, err))
	return fmt.Errorf("%s: %w", r.Name, err)
}

func (r *running) stop(log *slog.Logger) error {
	r.cancel()
	nag := time.NewTicker(nagEvery)
	defer nag.Stop()
	for {
		select {
		case <-r.done:
			return r.err
		case <-nag.C:
			log.Warn("waiting for a task to stop", slog.String(telemetry.Task, r.Name))
		}
	}
}
