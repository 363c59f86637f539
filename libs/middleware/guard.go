package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/sony/gobreaker/v2"

	"usher.internal/libs/access"
)

// Causes of ends, told apart by the breaker and in texts.
var (
	// ErrOpen is among the causes of ErrUnavailable while the breaker keeps from asking.
	ErrOpen = errors.New("it failed too often and is left alone for a while")

	errTimeout   = errors.New("it did not answer in time")
	errAbandoned = errors.New("nobody waits for the answer")
	errFull      = errors.New("too many calls are under way")
)

// Keyed is a Middleware that can say which questions are equal.
type Keyed interface {
	Middleware
	// Key is the same for two requests if and only if the upstream would be asked the
	// very same thing. It lives in memory while the call is under way, no longer.
	Key(req *access.Request) string
}

// Limits are what a Guard holds its middleware to. All must be positive.
type Limits struct {
	// Timeout of one call; what is left of the asker's context clips his waiting.
	Timeout time.Duration
	// Concurrent is the most calls under way at once.
	Concurrent int
	// Failures in a row open the breaker; after Open it lets one call probe.
	Failures int
	Open     time.Duration
}

// Guard asks a middleware within Limits, shares one call between equal questions,
// and turns every fault, panics included, into ErrUnavailable.
type Guard struct {
	name    string
	inner   Keyed
	log     *slog.Logger
	timeout time.Duration
	flights Flights[Answer]
	slots   chan struct{}
	breaker *gobreaker.CircuitBreaker[Answer]
}

var (
	_ Keyed      = (*Guard)(nil)
	_ Identifier = (*Guard)(nil)
)

// NewGuard wraps inner; name is the check's, for the log.
func NewGuard(name string, inner Keyed, l Limits, log *slog.Logger) *Guard {
	return &Guard{
		name:    name,
		inner:   inner,
		log:     log,
		timeout: l.Timeout,
		slots:   make(chan struct{}, l.Concurrent),
		breaker: gobreaker.NewCircuitBreaker[Answer](gobreaker.Settings{
			Name:        name,
			Timeout:     l.Open,
			ReadyToTrip: func(c gobreaker.Counts) bool { return int(c.ConsecutiveFailures) >= l.Failures },
			// A call that nobody waited for says nothing about the upstream.
			IsExcluded: func(err error) bool { return errors.Is(err, errAbandoned) },
		}),
	}
}

// Ask implements Middleware. It returns when ctx ends at the latest; while the
// breaker is open it returns ErrUnavailable at once.
func (g *Guard) Ask(ctx context.Context, req *access.Request) (Answer, error) {
	if g.breaker.State() == gobreaker.StateOpen {
		return Answer{}, unavailable(ErrOpen)
	}
	if err := ctx.Err(); err != nil {
		return Answer{}, unavailable(err)
	}
	// The call outlives this asker, who may reuse his request.
	own := *req
	a, err := g.flights.Do(ctx, g.inner.Key(req), g.timeout, func(ctx context.Context) (Answer, error) {
		return g.call(ctx, &own)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = errTimeout
	}
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = ErrOpen // it opened, or one probes, since the look at it above
	}
	if err != nil {
		return Answer{}, unavailable(err)
	}
	return a, nil
}

// Key says which questions are equal, as the middleware does.
func (g *Guard) Key(req *access.Request) string { return g.inner.Key(req) }

// Identity is by what the middleware knows the viewer: what it says itself, else his
// token, else his query.
func (g *Guard) Identity(req *access.Request) string {
	if i, ok := g.inner.(Identifier); ok {
		return i.Identity(req)
	}
	if req.Token != "" {
		return req.Token
	}
	return req.Query
}

// Close waits for calls under way; each ends by its own timeout.
func (g *Guard) Close() { g.flights.Wait() }

// call is the shared call: a slot, then the breaker, then the middleware.
func (g *Guard) call(ctx context.Context, req *access.Request) (Answer, error) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return Answer{}, unavailable(errFull)
	}
	return g.breaker.Execute(func() (Answer, error) {
		a, err := g.ask(ctx, req)
		if err != nil && errors.Is(context.Cause(ctx), errAbandoned) {
			return Answer{}, errAbandoned
		}
		return a, err
	})
}

// ask recovers: a panic in the shared call would end the whole process, for no
// asker's stack is above it.
func (g *Guard) ask(ctx context.Context, req *access.Request) (a Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			g.log.ErrorContext(ctx, "middleware panicked", slog.String("check", g.name),
				slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			a, err = Answer{}, unavailable(errors.New("it failed inside"))
		}
	}()
	return g.inner.Ask(ctx, req)
}

// unavailable wraps err as ErrUnavailable, once.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
