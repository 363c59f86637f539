package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/pgstore"
)

// callers have a call of the ledger in flight each.
const callers = 4

// ledger is set-based admission with its audit rows, alone: what Postgres can give.
func ledger(batch int) path {
	name := fmt.Sprintf("ledger-%d", batch)
	start := func(ctx context.Context, l *lab) (*stage, error) {
		store, err := pgstore.Open(ctx, pgstore.Config{DSN: l.postgres.DSN(), MaxConns: callers + 1, Application: "bench"}, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(store.Migrate(ctx), l.fill(ctx)); err != nil {
			store.Close()
			return nil, err
		}
		stop := sweeping(store)
		admit := &admitter{ledger: pgstore.NewLedger(store), keyer: l.keyer, batch: batch}
		return &stage{
			watch: l.servers(nil), stop: stop, load: admit.run,
			before: func(ctx context.Context, round int) error { admit.round = round; return l.checkpoint(ctx) },
			after: func(ctx context.Context, _ *result) error {
				return errors.Join(l.rows(ctx, admit.applied), l.strict(ctx))
			},
		}, nil
	}
	return path{
		name: name, conns: 64, start: start,
		what: fmt.Sprintf("yardstick: the ledger alone, %d decisions a call, %d callers (latency is a call's)", batch, callers),
	}
}

// sweeping does what a recorder does beside the ledger: a tick and a sweep each second. stop
// ends it and closes the store.
func sweeping(store *pgstore.Store) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := store.Sweep(ctx); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() error {
		cancel()
		err := <-done
		store.Close()
		return err
	}
}

// admitter calls the ledger in a closed loop with opens as a worker makes them.
type admitter struct {
	ledger  *pgstore.Ledger
	keyer   *access.Keyer
	batch   int
	round   int
	applied int
}

func (a *admitter) run(ctx context.Context, start, end time.Time) (tally, error) {
	var wg sync.WaitGroup
	parts := make([]tally, callers)
	errs := make([]error, callers)
	applied := make([]int, callers)
	for i := range callers {
		wg.Go(func() { applied[i], errs[i] = a.call(ctx, &parts[i], start, end) })
	}
	wg.Wait()
	var all tally
	for i := range callers {
		all.add(&parts[i])
		a.applied += applied[i]
	}
	slices.Sort(all.latency)
	return all, errors.Join(errs...)
}

func (a *admitter) call(ctx context.Context, t *tally, start, end time.Time) (applied int, err error) {
	items := make([]admission.Item, a.batch)
	for time.Now().Before(end) {
		for i := range items {
			items[i] = a.open()
		}
		sent := time.Now()
		results, err := a.ledger.Apply(ctx, items)
		if err != nil {
			return applied, err
		}
		applied += len(items)
		if now := time.Now(); now.After(start) && now.Before(end) {
			t.latency = append(t.latency, uint32(now.Sub(sent).Microseconds()))
			count(t, results)
		}
	}
	return applied, nil
}

func count(t *tally, results []admission.Result) {
	for _, r := range results {
		switch {
		case r.Outcome == access.Allow:
		case r.Reason == access.Limit:
			t.refused++
		default:
			t.fail("ledger answered %s %s: %v", r.Outcome, r.Reason, r.Err)
		}
		t.done++
	}
}

// open is what a worker makes of a question: the same texts, keys and steps.
func (a *admitter) open() admission.Item {
	v := someone(a.round, rand.IntN(1<<24))
	id := uuid.Must(uuid.NewV7()) // fails only without a source of randomness
	return admission.Item{Open: &admission.Open{
		Record: admission.Record{
			ID: id, Region: "main", Edge: "edge1", Node: "web1", Caller: "nginx", Stream: v.stream,
			Realm: "main", User: v.user, IP: netip.MustParseAddr(v.ip), UserAgent: agent, Revision: 1,
			TraceID: uuid.New(), Duration: 300 * time.Microsecond,
			Steps: []access.Step{
				{Name: "edge to worker", Result: "received", Text: "as the clocks of both say", Micros: 400},
				{Name: "rule", Result: "match", Text: "streams[0] **", Micros: 2},
				{Name: "check site", Result: "allow", Text: "user " + v.user, Micros: 14},
				{Name: "limit", Result: "asked", Text: "at most 3 seats, refuse"},
			},
		},
		Reason: access.Granted, Session: uuid.Must(uuid.NewV7()),
		Key: access.Key(uuid.New()), Subject: a.keyer.Key("user", "main", v.user), Token: access.Key(uuid.New()),
		Device: v.ip + " " + agent, Limit: 3, Mode: access.RefuseNew, Seat: 70 * time.Minute, Lease: time.Hour,
	}}
}

// newKeyer makes a key as a cluster would.
func newKeyer() (*access.Keyer, error) { return access.NewKeyer(make([]byte, access.ClusterKeySize)) }
