package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"usher.internal/libs/lifecycle"
	"usher.internal/libs/pgd"
	"usher.internal/libs/pgstore"
	"usher.internal/services/edge"
	"usher.internal/services/recorder"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/worker"
)

const (
	// readyPoll and readyNag: how often readiness is asked for, and how long it may take
	// before the screen says what is missing.
	readyPoll = 20 * time.Millisecond
	readyNag  = 10 * time.Second
)

// run starts the services and waits for their end. What stands first stops last.
func (p *parts) run(ctx context.Context, l listeners, began time.Time) error {
	known, grants, subscribers := p.store.Known(), p.store.Grants(), p.store.Subscribers()
	tasks := []lifecycle.Task{
		{Name: "nats", Run: p.watchNATS},
		{Name: "postgres", Run: p.watchPostgres},
		{Name: "known viewers", Run: known.Run},
		{Name: "grants", Run: grants.Run},
		{Name: "files", Run: p.files.Run},
		{Name: "subscribers", Run: subscribers.Run},
	}
	if l.admin != nil {
		mux := lifecycle.AdminMux(p.health, p.Telemetry.Registry)
		tasks = append(tasks, lifecycle.Admin(l.admin, mux, p.Telemetry.Log))
	}
	services, err := p.services(l, known, grants, subscribers)
	if err != nil {
		return err
	}
	watcher := &policyfile.Watcher{Path: p.Policy, Author: author, Store: p.store, Keyer: p.keyer, Log: p.Log}
	watcher.Seen(p.source)
	tasks = append(tasks, services...)
	tasks = append(tasks,
		lifecycle.Task{Name: "policy file", Run: watcher.Run},
		lifecycle.Task{Name: "ready", Run: func(ctx context.Context) error { return p.ready(ctx, l, began) }},
	)
	return lifecycle.Run(ctx, p.Telemetry.Log, tasks...)
}

// services are the roles, in the order in which they may stop last to first: the edge stops
// before the workers that it asks.
func (p *parts) services(l listeners, known *pgstore.Known, grants *pgstore.Grants, subscribers *pgstore.Subscribers) ([]lifecycle.Task, error) {
	cfg := recorder.Config{Name: recorderName, Region: Region}
	if p.postgres != nil {
		cfg.DiskWatch = p.Data.postgresDir()
	}
	rec, err := recorder.New(cfg, recorder.Deps{
		Bus: p.conns[recorderName], Store: p.store, Telemetry: p.Telemetry, Health: p.health,
	})
	if err != nil {
		return nil, err
	}
	commit := worker.NewCommitter(pgstore.NewLedger(p.store), p.Telemetry)
	tasks := []lifecycle.Task{{Name: recorderName, Run: rec.Run}, {Name: "group commit", Run: commit.Run}}
	for i := range p.Workers {
		name := workerName(i)
		w, err := worker.New(worker.Config{Name: name, Region: Region, Pool: p.Pool}, worker.Deps{
			Bus: p.conns[name], Committer: commit, Outbox: p.store, Sessions: p.store, Checks: p.store,
			Directives: p.store, Claims: p.store.Claims(), Known: known, Grants: grants, Subscribers: subscribers, Keyer: p.keyer,
			Telemetry: p.Telemetry, Files: p.files, Health: p.health,
		})
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, lifecycle.Task{Name: name, Run: w.Run})
	}
	e, err := edge.New(edge.Config{Name: edgeName, Region: Region, State: p.Data.stateFile()}, edge.Deps{
		Bus: p.conns[edgeName], Keyer: p.keyer, Telemetry: p.Telemetry, Listener: l.http, Health: p.health,
	})
	if err != nil {
		return nil, err
	}
	return append(tasks, lifecycle.Task{Name: edgeName, Run: e.Run}), nil
}

// ready waits until every part says so and tells it once.
func (p *parts) ready(ctx context.Context, l listeners, began time.Time) error {
	poll, nag := time.NewTicker(readyPoll), time.NewTicker(readyNag)
	defer poll.Stop()
	defer nag.Stop()
	for {
		missing := p.health.Ready()
		if len(missing) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-nag.C:
			for _, name := range slices.Sorted(maps.Keys(missing)) {
				p.Log.WarnContext(ctx, "still waiting", slog.String("for", name), slog.String("because", missing[name]))
			}
		case <-poll.C:
		}
	}
	if p.Ready == nil {
		return nil
	}
	r := Ready{
		HTTP: l.http.Addr(), DSN: p.dsn, NATS: p.nats.ClientURL(), Took: time.Since(began),
		Samples: samples(ctx, p.policy, l.http.Addr()),
	}
	if l.admin != nil {
		r.Admin = l.admin.Addr()
	}
	p.Ready(r)
	return nil
}

// watchNATS ends everything when the embedded server cannot go on.
func (p *parts) watchNATS(ctx context.Context) error {
	select {
	case err := <-p.nats.Failed():
		return err
	case <-ctx.Done():
		return nil
	}
}

// watchPostgres starts the private server again when it went down by itself. Until then the
// cluster serves as it does whenever Postgres is away.
func (p *parts) watchPostgres(ctx context.Context) error {
	if p.postgres == nil {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case err := <-p.postgres.Failed():
			p.Log.ErrorContext(ctx, "starting PostgreSQL again", slog.Any("error", err))
		case <-ctx.Done():
			return nil
		}
		server, err := pgd.Start(ctx, pgd.Options{Dir: p.Data.postgresDir(), Log: p.Telemetry.Log, Unsafe: p.Unsafe})
		if err != nil {
			return fmt.Errorf("starting PostgreSQL again: %w", err)
		}
		p.postgres = server
		if server.DSN() != p.dsn {
			// The pool would look for it at the old port for ever.
			return fmt.Errorf("the port of PostgreSQL was taken by another program: start usher again")
		}
	}
}
