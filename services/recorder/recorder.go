// Package recorder brings to Postgres what edges and workers reported through the journal,
// exactly once, and does what needs Postgres but no worker: it tells the edges what was left
// in the outbox, spreads new policy revisions, ends the seats that nobody renews, and keeps
// the partitions. Any number of recorders may run; there is no leader (DESIGN.md §2).
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/nats"
)

var (
	errNoNATS     = errors.New("not connected to NATS")
	errNoPostgres = errors.New("no answer from Postgres yet")
)

// Store is what a recorder needs of Postgres; *pgstore.Store is one.
type Store interface {
	JournalStore
	Outbox
	PolicyStore
	SeatStore
	PartitionStore
	DirectiveStore
	UsageStore
	HistoryStore
}

// Deps are the things that a recorder uses and does not close.
type Deps struct {
	Bus       *bus.Conn
	Store     Store
	Telemetry *telemetry.Telemetry
	// Health gets the recorder's readiness; nil takes one of its own, shown on Config.Admin.
	Health *lifecycle.Health
}

// Service is a recorder. Create it with New and run it once.
type Service struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	health   *lifecycle.Health
	metrics  *metrics
	spreader *spreader
	scribe   *scribe
	relay    *relay
	herald   *herald
	sweeper  *sweeper
	janitor  *janitor
	accounts *accountant
	disk     *diskWatch // nil: nothing is watched
}

// New puts a recorder together; it starts nothing. The error is a name that cannot stand in
// a subject, or a missing dependency.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := errors.Join(nats.CheckToken("recorder", cfg.Name), nats.CheckToken("region", cfg.Region)); err != nil {
		return nil, err
	}
	if deps.Bus == nil || deps.Store == nil || deps.Telemetry == nil {
		return nil, errors.New("recorder needs bus, store and telemetry")
	}
	s := &Service{cfg: cfg, deps: deps, log: deps.Telemetry.Log, health: deps.Health, metrics: newMetrics(deps.Telemetry.Registry)}
	if s.health == nil {
		s.health = new(lifecycle.Health)
	}
	s.spreader = newSpreader(deps.Store, deps.Bus, s.log)
	s.scribe = &scribe{
		region: cfg.Region, source: deps.Bus, store: deps.Store, ready: s.spreader.read, snapshot: s.spreader.current,
		log: s.log, metrics: s.metrics,
	}
	s.relay = &relay{outbox: deps.Store, bus: deps.Bus, metrics: s.metrics}
	s.herald = &herald{store: deps.Store, stream: deps.Bus, log: s.log, metrics: s.metrics}
	s.sweeper = &sweeper{store: deps.Store, log: s.log, metrics: s.metrics}
	s.janitor = &janitor{store: deps.Store, snapshot: s.spreader.current, log: s.log}
	s.accounts = &accountant{store: deps.Store, now: time.Now}
	if cfg.DiskWatch != "" {
		s.disk = &diskWatch{path: cfg.DiskWatch, author: "recorder " + cfg.Name, store: deps.Store, used: diskUsed, log: s.log, metrics: s.metrics}
	}
	s.health.Check("recorder "+cfg.Name+": nats", s.connected)
	s.health.Check("recorder "+cfg.Name+": postgres", s.answered)
	return s, nil
}

func (s *Service) connected() error {
	if !s.deps.Bus.Connected() {
		return errNoNATS
	}
	return nil
}

// answered turns good with the first answer of Postgres. An outage after that is no reason
// to take the recorder away: it goes on by itself, and usher_recorder_faults_total tells.
func (s *Service) answered() error {
	select {
	case <-s.spreader.read:
		return nil
	default:
		return errNoPostgres
	}
}

// Run works until ctx ends, then finishes what it has begun and returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	tasks := []lifecycle.Task{
		s.task("streams", streamsEvery, streamsRetry, streamsTimeout, s.ensure),
		s.task("maintain", maintainEvery, maintainRetry, maintainTimeout, s.maintain),
		s.task("policy", policyEvery, policyEvery, policyTimeout, s.spreader.spread),
		s.task("policy trials", policyEvery, policyEvery, policyTimeout, s.spreader.goBack),
		s.task("usage", usageEvery, usageEvery, usageTimeout, s.accounts.count),
		s.task("sweep", sweepEvery, sweepEvery, sweepTimeout, s.sweeper.sweep),
		s.task("outbox", outboxEvery, outboxEvery, outboxTimeout, s.relay.tell),
		s.task("directives", outboxEvery, outboxEvery, outboxTimeout, s.herald.tell),
		s.task("restate", restateEvery, restateRetry, restateTimeout, s.herald.restate),
		s.task("enforce", enforceEvery, enforceEvery, enforceTimeout, s.herald.enforce),
		{Name: "journal", Run: s.scribe.Run},
	}
	for _, r := range s.cfg.Regions {
		// A round of its own each: one that is cut off must not keep the others waiting.
		tasks = append(tasks, s.task("region "+r.Name, streamsEvery, streamsRetry, streamsTimeout, func(ctx context.Context) error {
			return s.deps.Bus.EnsureRegion(ctx, r.Name, r.Replicas)
		}))
	}
	if s.disk != nil {
		tasks = append(tasks, s.task("disk", diskEvery, diskEvery, diskTimeout, s.disk.look))
	}
	if s.cfg.Admin != "" {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Admin)
		if err != nil {
			return fmt.Errorf("admin address: %w", err)
		}
		admin := lifecycle.Admin(l, lifecycle.AdminMux(s.health, s.deps.Telemetry.Registry), s.log)
		tasks = append([]lifecycle.Task{admin}, tasks...)
	}
	return lifecycle.Run(ctx, s.log, tasks...)
}

func (s *Service) task(name string, every, retry, timeout time.Duration, do func(context.Context) error) lifecycle.Task {
	r := &round{name: name, every: every, retry: retry, timeout: timeout, do: do, log: s.log, metrics: s.metrics}
	return lifecycle.Task{Name: name, Run: r.Run}
}

const (
	// streamsEvery makes the streams again that somebody deleted, or that NATS lost.
	streamsEvery   = time.Minute
	streamsRetry   = time.Second
	streamsTimeout = 10 * time.Second
)

// ensure makes the streams and buckets that the whole cluster uses.
func (s *Service) ensure(ctx context.Context) error {
	return s.deps.Bus.EnsureStreams(ctx, s.cfg.Region, s.cfg.Replicas)
}

// maintain waits for the policy, which says how long rows are kept: before that nothing
// may be dropped.
func (s *Service) maintain(ctx context.Context) error {
	select {
	case <-s.spreader.read:
		return s.janitor.maintain(ctx)
	case <-ctx.Done():
		return errNoPostgres
	}
}
