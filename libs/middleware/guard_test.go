package middleware

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/access"
)

// upstream is a Keyed whose behaviour a test sets.
type upstream struct {
	calls, running, most atomic.Int32
	do                   func(ctx context.Context, req *access.Request) (Answer, error)
}

func (u *upstream) Key(req *access.Request) string { return req.Query }

func (u *upstream) Ask(ctx context.Context, req *access.Request) (Answer, error) {
	u.calls.Add(1)
	n := u.running.Add(1)
	defer u.running.Add(-1)
	for m := u.most.Load(); n > m && !u.most.CompareAndSwap(m, n); m = u.most.Load() {
	}
	return u.do(ctx, req)
}

// after answers a after d, or says unavailable when ctx ends first.
func after(d time.Duration, a Answer) func(context.Context, *access.Request) (Answer, error) {
	return func(ctx context.Context, _ *access.Request) (Answer, error) {
		select {
		case <-time.After(d):
			return a, nil
		case <-ctx.Done():
			return Answer{}, unavailable(context.Cause(ctx))
		}
	}
}

var limits = Limits{Timeout: 500 * time.Millisecond, Concurrent: 2, Failures: 3, Open: 5 * time.Second}

func guard(u *upstream) *Guard { return NewGuard("test", u, limits, slog.New(slog.DiscardHandler)) }

func asking(q string) *access.Request { return &access.Request{Query: q} }

func TestGuardPassesAnswersOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := Answer{Allowed: true, User: "u1", Sessions: 2}
		g := guard(&upstream{do: after(time.Millisecond, want)})
		got, err := g.Ask(t.Context(), asking("a"))
		if err != nil || got != want {
			t.Errorf("Ask = %+v, %v, want %+v", got, err, want)
		}
		g.Close()
	})
}

func TestGuardTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := guard(&upstream{do: after(time.Hour, Answer{Allowed: true})})
		begin := time.Now()
		_, err := g.Ask(t.Context(), asking("a"))
		if took := time.Since(begin); !errors.Is(err, ErrUnavailable) || took != limits.Timeout {
			t.Errorf("Ask = %v after %v, want unavailable after %v", err, took, limits.Timeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin = time.Now()
		_, err = g.Ask(ctx, asking("b"))
		if took := time.Since(begin); !errors.Is(err, ErrUnavailable) || took != 100*time.Millisecond {
			t.Errorf("Ask with 100ms left = %v after %v, want unavailable after 100ms", err, took)
		}
		g.Close()
	})
}

func TestGuardSharesEqualQuestions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{do: after(100*time.Millisecond, Answer{Allowed: true})}
		g := guard(u)
		first, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 200)
		for i := range 200 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			go func() {
				_, err := g.Ask(ctx, asking("same"))
				answers <- err
			}()
			synctest.Wait()
		}
		cancel() // the first asker goes; the others must get their answer all the same
		synctest.Wait()
		if err := <-answers; !errors.Is(err, ErrUnavailable) {
			t.Errorf("the cancelled asker got %v", err)
		}
		for range 199 {
			if err := <-answers; err != nil {
				t.Fatalf("Ask = %v", err)
			}
		}
		if n := u.calls.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times, want once", n)
		}
	})
}

func TestGuardCancelsWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{do: after(400*time.Millisecond, Answer{Allowed: true})}
		g := guard(u)
		for range 10 * limits.Failures {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _, _ = g.Ask(ctx, asking("a")) }()
			synctest.Wait()
			cancel()
			synctest.Wait()
			if n := u.running.Load(); n != 0 {
				t.Fatalf("%d calls run on after their only asker was cancelled", n)
			}
		}
		if _, err := g.Ask(t.Context(), asking("a")); err != nil {
			t.Errorf("askers that were cancelled opened the breaker: %v", err)
		}
	})
}

func TestGuardBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.Join(ErrUnavailable)
		u := &upstream{do: func(context.Context, *access.Request) (Answer, error) { return Answer{}, down }}
		g := guard(u)
		for range limits.Failures {
			_, _ = g.Ask(t.Context(), asking("a"))
		}
		begin := time.Now()
		if _, err := g.Ask(t.Context(), asking("a")); !errors.Is(err, ErrUnavailable) || time.Since(begin) != 0 {
			t.Errorf("open breaker = %v after %v, want unavailable at once", err, time.Since(begin))
		}
		if n := u.calls.Load(); int(n) != limits.Failures {
			t.Errorf("the upstream was asked %d times, want %d", n, limits.Failures)
		}
		time.Sleep(limits.Open + time.Millisecond) // synctest's clock: no waiting
		u.do = after(time.Millisecond, Answer{Text: "no"})
		if a, err := g.Ask(t.Context(), asking("a")); err != nil || a.Text != "no" {
			t.Errorf("probe = %+v, %v, want the refusal", a, err)
		}
		for range 10 * limits.Failures {
			if _, err := g.Ask(t.Context(), asking("a")); err != nil {
				t.Fatalf("refusals opened the breaker: %v", err)
			}
		}
	})
}

// An upstream that swallows questions must open the breaker also where every
// asker's own budget is shorter than the timeout.
func TestGuardCountsCallsThatOutliveTheirAskers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{do: after(time.Hour, Answer{})}
		g := guard(u)
		for range limits.Failures {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, _ = g.Ask(ctx, asking("a"))
			cancel()
			g.Close()
		}
		begin := time.Now()
		if _, err := g.Ask(t.Context(), asking("b")); !errors.Is(err, ErrUnavailable) || time.Since(begin) != 0 {
			t.Errorf("Ask = %v after %v, want unavailable at once", err, time.Since(begin))
		}
	})
}

func TestGuardBoundsCallsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{do: after(200*time.Millisecond, Answer{Allowed: true})}
		g := guard(u)
		errs := make(chan error, 8)
		for i := range 8 {
			go func() {
				_, err := g.Ask(t.Context(), asking(string(rune('a'+i))))
				errs <- err
			}()
		}
		var full int
		for range 8 {
			if err := <-errs; err != nil {
				full++
			}
		}
		// Two at a time and 200ms each: 0-200, 200-400, and two that begin at 400
		// and are cut at 500; the rest never got a place.
		if full != 4 || u.most.Load() != 2 {
			t.Errorf("%d failed, %d at once; want 4, 2", full, u.most.Load())
		}
	})
}

func TestGuardSurvivesPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := guard(&upstream{do: func(context.Context, *access.Request) (Answer, error) { panic("secret") }})
		if _, err := g.Ask(t.Context(), asking("a")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Ask = %v, want unavailable", err)
		}
	})
}
