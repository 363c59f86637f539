package lifecycle_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/lifecycle"
)

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// task runs until it is stopped and takes a while for it.
func (d *diary) task(name string) lifecycle.Task {
	return lifecycle.Task{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		d.write("stopping " + name)
		time.Sleep(time.Second) // virtual
		d.write("stopped " + name)
		return nil
	}}
}

func failing(err error) lifecycle.Task {
	return lifecycle.Task{Name: "failing", Run: func(context.Context) error { return err }}
}

var errBoom = errors.New("boom")

func TestTasksStopFromTheLastToTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Minute, cancel)
		if err := lifecycle.Run(ctx, nil, d.task("a"), d.task("b"), d.task("c")); err != nil {
			t.Errorf("Run = %v", err)
		}
		want := []string{"stopping c", "stopped c", "stopping b", "stopped b", "stopping a", "stopped a"}
		if !slices.Equal(d.lines, want) {
			t.Errorf("diary = %q, want %q", d.lines, want)
		}
	})
}

func TestOneErrorStopsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		late := lifecycle.Task{Name: "late", Run: func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("could not flush")
		}}
		err := lifecycle.Run(context.Background(), nil, d.task("a"), failing(errBoom), late)
		if !errors.Is(err, errBoom) || err.Error() != "late: could not flush\nfailing: boom" {
			t.Errorf("Run = %q, want both errors with their tasks", err)
		}
		if !slices.Equal(d.lines, []string{"stopping a", "stopped a"}) {
			t.Errorf("diary = %q", d.lines)
		}
	})
}

func TestAPanicIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		bad := lifecycle.Task{Name: "bad", Run: func(context.Context) error { panic(errBoom) }}
		err := lifecycle.Run(context.Background(), nil, d.task("a"), bad)
		if !errors.Is(err, lifecycle.ErrPanic) || err.Error() != "bad: panic: boom" {
			t.Errorf("Run = %v, want the panic", err)
		}
		if len(d.lines) != 2 {
			t.Errorf("diary = %q, want the others stopped in order", d.lines)
		}
	})
}

func TestATaskThatEndsByItselfEndsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		begin := time.Now()
		if err := lifecycle.Run(ctx, nil, failing(nil), d.task("a")); err != nil {
			t.Errorf("Run = %v", err)
		}
		if time.Since(begin) < time.Hour {
			t.Errorf("the others were stopped after %v", time.Since(begin))
		}
		if err := lifecycle.Run(context.Background(), nil, failing(nil), failing(nil)); err != nil {
			t.Errorf("Run of tasks that all end = %v", err)
		}
		if err := lifecycle.Run(context.Background(), nil); err != nil {
			t.Errorf("Run of nothing = %v", err)
		}
	})
}

func TestBeingCancelledIsNoErrorWhenAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		polite := lifecycle.Task{Name: "polite", Run: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		if err := lifecycle.Run(ctx, nil, polite); err != nil {
			t.Errorf("Run = %v", err)
		}
		// Something else being cancelled is a failure like any other.
		if err := lifecycle.Run(context.Background(), nil, failing(context.Canceled)); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want the task's error", err)
		}
	})
}
