package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/directive"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// loadRetry is how soon the directives are read from Postgres again while it is away.
	loadRetry   = 2 * time.Second
	loadTimeout = 10 * time.Second
	// directivesSweep is how often what has ended is forgotten.
	directivesSweep = time.Minute
	// directivesWait is how long a worker that starts waits for bans before it takes questions.
	directivesWait = 5 * time.Second
)

// DirectiveStore has the bans and overrides in force; *pgstore.Store is one.
type DirectiveStore interface {
	Directives(ctx context.Context) ([]directive.Directive, error)
}

// controlFeed brings what is spread to all; *bus.Conn is one.
type controlFeed interface {
	FollowControl(ctx context.Context, f func(seq uint64, m *usherv1.Control), onTick func(last uint64, at time.Time)) error
}

// directives keeps the bans and overrides as the control stream tells them, and as Postgres has
// them at the start: either may be away, and neither takes anything back that the other knows.
type directives struct {
	book  *directive.Book
	store DirectiveStore // nil: the stream alone tells
	feed  controlFeed
	log   *slog.Logger

	known     chan struct{} // closed once it is known who is banned
	knownOnce sync.Once
	away      atomic.Bool // Postgres could not be read
}

func newDirectives(store DirectiveStore, feed controlFeed, log *slog.Logger) *directives {
	return &directives{book: directive.NewBook(), store: store, feed: feed, log: log, known: make(chan struct{})}
}

// Run follows until ctx ends.
func (d *directives) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	beside.Go(func() { d.load(ctx) })
	beside.Go(func() { d.sweep(ctx) })
	err := d.feed.FollowControl(ctx, func(_ uint64, m *usherv1.Control) { d.hear(ctx, m) }, func(uint64, time.Time) { d.ticked() })
	beside.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ticked hears that the stream has told all that it holds. That is enough only where Postgres cannot be
// asked: NATS may have lost its data, and be told again by a recorder that looks every 15 s.
func (d *directives) ticked() {
	if d.store == nil || d.away.Load() {
		d.complete()
	}
}

func (d *directives) complete() { d.knownOnce.Do(func() { close(d.known) }) }

// wait returns once the directives are known, or after a while: without Postgres and without
// ticks questions are better answered than not.
func (d *directives) wait(ctx context.Context) {
	enough := time.NewTimer(directivesWait)
	defer enough.Stop()
	select {
	case <-d.known:
	case <-enough.C:
		d.log.WarnContext(ctx, "bans and overrides are not known yet, questions are taken all the same")
	case <-ctx.Done():
	}
}

func (d *directives) hear(ctx context.Context, m *usherv1.Control) {
	if _, _, _, err := d.book.Apply(m, time.Now()); err != nil {
		d.log.ErrorContext(ctx, "ban or override cannot be used", slog.Any(telemetry.Error, err))
	}
}

// load reads what is in force from Postgres, once.
func (d *directives) load(ctx context.Context) {
	if d.store == nil {
		return
	}
	retry := time.NewTicker(loadRetry)
	defer retry.Stop()
	for failed := false; ; failed = true {
		list, err := d.read(ctx)
		if err == nil {
			d.book.Load(list)
			d.complete()
			return
		}
		d.away.Store(true)
		if !failed && ctx.Err() == nil {
			d.log.WarnContext(ctx, "bans and overrides cannot be read from postgres, the control stream tells them", slog.Any(telemetry.Error, err))
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *directives) read(ctx context.Context) ([]directive.Directive, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	return d.store.Directives(ctx)
}

func (d *directives) sweep(ctx context.Context) {
	every := time.NewTicker(directivesSweep)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			d.book.Sweep(time.Now())
		case <-ctx.Done():
			return
		}
	}
}
