// Package edge answers streaming servers and proxies over HTTP: from its memory of
// running sessions, by asking the workers over NATS, or by the rule's fail mode. It
// always answers, in the caller's own dialect and within the caller's budget.
//
// It runs in exposed places: it has no database, asks no upstream, and knows of the
// policy only its projection. README.md tells how its parts fit together.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/directive"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/services/edge/internal/caller"
)

const (
	// drainNotice is how long a stopping edge goes on answering while it asks its
	// callers to connect anew: a connection that is closed between two requests
	// costs the caller a question, and with it a viewer.
	drainNotice = 500 * time.Millisecond
	// lastCall is what connections that wait in the kernel's queue get to be accepted.
	lastCall = 100 * time.Millisecond
	// stopTime is what questions in flight get to end, above every budget.
	stopTime = 25 * time.Second
)

// Deps are what an edge is given. Bus, Keyer and Telemetry are needed; the caller
// opens them and closes them after Run has returned.
type Deps struct {
	Bus       *bus.Conn
	Keyer     *access.Keyer
	Telemetry *telemetry.Telemetry
	// Listener is where questions come in, made by Listen; nil to listen on Config.HTTP.
	Listener net.Listener
	// Health is told of the edge's readiness, if given.
	Health *lifecycle.Health
}

// Service is one edge.
type Service struct {
	cfg      Config
	keyer    *access.Keyer
	log      *slog.Logger
	tracer   trace.Tracer
	metrics  *metrics
	listener net.Listener
	adapters map[string]caller.Adapter

	decider Decider
	seats   Seats
	feed    Feed
	journal *journal

	keeper *keeper
	view   atomic.Pointer[view] // nil until the policy has arrived
	viewed chan struct{}        // closed when it has

	regions   regions
	table     *table
	denials   *denials
	abandoned *abandoned
	flights   *flights
	bars      *bars
	book      *directive.Book
	purging   *purging
	culprits  *culprits
	refusals  *refusals
	tallies   *tallies
	closings  closings
	clocks    clocks
	playlists *playlists
	pollers   *pollers

	start       time.Time     // of the monotonic clock
	began       instant       // when it was made
	recalled    atomic.Bool   // it goes on with sessions of before a restart; set before Run serves
	ticked      chan struct{} // closed at the control stream's first tick
	lastTick    atomic.Int64  // instant of the control stream's last tick
	clockOffset atomic.Int64  // worker's clock less ours in ms, 0 while they agree
	draining    atomic.Bool
}

// wires are the other processes, as the edge sees them.
type wires struct {
	decider Decider
	seats   Seats
	feed    Feed
	journal Journal
}

// New makes an edge. It begins nothing before Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if deps.Bus == nil || deps.Keyer == nil || deps.Telemetry == nil {
		return nil, errors.New("edge: bus, keyer and telemetry are needed")
	}
	err := errors.Join(names.CheckToken("edge", cfg.Name), names.CheckToken("region", cfg.Region))
	if err != nil {
		return nil, err
	}
	s := build(cfg, deps, wires{deps.Bus, deps.Bus, deps.Bus, deps.Bus.Journal(cfg.Region, cfg.Name)})
	s.playlists = newPlaylists(deps.Bus)
	return s, nil
}

func build(cfg Config, deps Deps, w wires) *Service {
	if cfg.Sessions == 0 {
		cfg.Sessions = defaultSessions
	}
	s := &Service{
		cfg: cfg, keyer: deps.Keyer, listener: deps.Listener,
		log:      deps.Telemetry.Log.With(slog.String(telemetry.Edge, cfg.Name)),
		tracer:   deps.Telemetry.Tracer("usher.internal/services/edge"),
		metrics:  newMetrics(deps.Telemetry.Registry),
		adapters: adapters(),
		decider:  w.decider, seats: w.seats, feed: w.feed,
		keeper: new(keeper), ticked: make(chan struct{}),
		viewed: make(chan struct{}), regions: newRegions(cfg.Region, cfg.Ask),
		table: newTable(cfg.Sessions), denials: newDenials(), abandoned: newAbandoned(), flights: newFlights(),
		bars: newBars(), book: directive.NewBook(), purging: newPurging(), culprits: newCulprits(), refusals: newRefusals(), tallies: newTallies(),
		pollers: newPollers(),
		// A monotonic clock that never shows 0, which stands for "never".
		start: time.Now().Add(-cutOff - time.Second),
	}
	s.began = s.now()
	s.closings.wake = make(chan struct{}, 1)
	s.journal = newJournal(w.journal, s.log)
	if deps.Health != nil {
		deps.Health.Check("edge "+cfg.Name, s.Ready)
	}
	return s
}

// now is the edge's monotonic clock.
func (s *Service) now() instant { return instant(time.Since(s.start)) }

// Run serves until ctx ends. Then it answers what was asked, tells the last signs of
// life and reports what is in its journal; sessions are not closed.
func (s *Service) Run(ctx context.Context) (err error) {
	if err := s.openKeeper(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.closeKeeper()) }()
	if err := s.recall(ctx); err != nil {
		return fmt.Errorf("edge: reading %s: %w", s.cfg.State, err)
	}
	l := s.listener
	if l == nil {
		var err error
		if l, err = Listen(ctx, s.cfg.HTTP); err != nil {
			return fmt.Errorf("edge: %w", err)
		}
	}
	// Stopped from the last to the first: what answers before what reports.
	return lifecycle.Run(ctx, s.log,
		lifecycle.Task{Name: "journal", Run: s.journal.run},
		lifecycle.Task{Name: "keep", Run: s.keepOn},
		lifecycle.Task{Name: "nodes", Run: s.poll},
		lifecycle.Task{Name: "directives", Run: s.purge},
		lifecycle.Task{Name: "control", Run: s.followControl},
		lifecycle.Task{Name: "policy", Run: s.followPolicy},
		lifecycle.Task{Name: "seats", Run: s.sweep},
		lifecycle.Task{Name: "http", Run: func(ctx context.Context) error { return s.serve(ctx, l) }},
	)
}

// Listen opens an address as an edge can stop on it without losing a question. Multipath
// TCP, Go's default, cannot (lastcall_linux.go).
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(ctx, "tcp", address)
}

// serve answers on l until ctx ends and every question that was asked has its answer.
func (s *Service) serve(ctx context.Context, l net.Listener) error {
	srv := s.newServer()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	s.log.InfoContext(ctx, "edge listens", slog.String(telemetry.Address, l.Addr().String()))
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	time.Sleep(drainNotice)
	if err := turnAway(l); err != nil {
		s.log.WarnContext(ctx, "connections that wait may be lost", slog.Any(telemetry.Error, err))
	}
	time.Sleep(lastCall)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
