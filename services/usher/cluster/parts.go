package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/natsd"
	"usher.internal/libs/pgd"
	"usher.internal/libs/pgstore"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/worker"
)

const (
	// migrateTimeout bounds how long a given Postgres may take to answer at the start.
	migrateTimeout = time.Minute
	closeTimeout   = 10 * time.Second
	// stopPostgres is what its shutdown checkpoint may take.
	stopPostgres = 2 * time.Minute
)

// parts are what the services share. They are opened in the order of need and closed in
// reverse.
type parts struct {
	Options
	health *lifecycle.Health
	keyer  *access.Keyer
	policy *policyfile.Policy
	source []byte // the policy file's content
	// policyErr is why the file cannot be used; policy is then the stored revision.
	policyErr error
	postgres  *pgd.Server
	dsn       string
	store     *pgstore.Store
	files     *worker.Files // what policies look into
	nats      *natsd.Server
	conns     map[string]*bus.Conn
}

// open makes everything ready that the services need. On error the parts that were opened
// are returned to be closed.
func open(ctx context.Context, o Options) (*parts, error) {
	p := &parts{Options: o, health: new(lifecycle.Health), conns: map[string]*bus.Conn{}}
	for _, step := range []func(context.Context) error{
		p.openKeys, p.openFiles, p.readPolicy, p.openPostgres, p.openStore, p.openNATS, p.openConns, p.applyPolicy,
	} {
		if err := step(ctx); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *parts) openKeys(context.Context) (err error) {
	if err := p.Data.makeKeys(); err != nil {
		return err
	}
	p.keyer, err = p.Data.Keyer()
	return err
}

func (p *parts) openFiles(ctx context.Context) error {
	p.files = worker.OpenFiles(ctx, []string{p.GeoIP}, p.Telemetry)
	return nil
}

// openPostgres takes the given server, the one given before, or a private one.
func (p *parts) openPostgres(ctx context.Context) error {
	if p.Postgres != "" {
		p.dsn = p.Postgres
		return nil
	}
	given, err := p.Data.givenDSN()
	if err != nil {
		return err
	}
	if given != "" {
		p.Log.InfoContext(ctx, "using the Postgres that was given before (postgres.dsn in the data directory)")
		p.dsn = given
		return nil
	}
	p.Log.InfoContext(ctx, "starting PostgreSQL")
	p.postgres, err = pgd.Start(ctx, pgd.Options{Dir: p.Data.postgresDir(), Log: p.Telemetry.Log, Unsafe: p.Unsafe})
	if err != nil {
		return err
	}
	p.dsn = p.postgres.DSN()
	return nil
}

func (p *parts) openStore(ctx context.Context) (err error) {
	p.store, err = pgstore.Open(ctx, pgstore.Config{DSN: p.dsn, MaxConns: 8 + 4*p.Workers, Application: "usher"}, p.Telemetry.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := p.store.Migrate(ctx); err != nil {
		return fmt.Errorf("%w; is the server up, and may its user make schemas in the database?", err)
	}
	if err := pgstore.NewLedger(p.store).Warm(ctx, 2*p.Workers); err != nil {
		return err
	}
	if p.Postgres != "" {
		// Remembered only now: one that never worked must not come between a cluster and its data.
		return replace(p.Data.dsnFile(), []byte(p.Postgres+"\n"), 0o600)
	}
	return nil
}

func (p *parts) openNATS(context.Context) error {
	token, err := readToken(p.Data.TokenFile())
	if err != nil {
		return err
	}
	p.nats, err = natsd.Start(natsd.Options{
		Dir: p.Data.natsDir(), Name: "usher", Listen: p.NATS, Token: token,
		SyncAlways: !p.Unsafe, Log: p.Telemetry.Log,
	})
	if err != nil {
		return fmt.Errorf("starting NATS: %w", err)
	}
	return nil
}

// openConns gives each role a connection of its own, as if it ran elsewhere.
func (p *parts) openConns(ctx context.Context) error {
	names := []string{edgeName, recorderName}
	for i := range p.Workers {
		names = append(names, workerName(i))
	}
	for _, name := range names {
		conn, err := bus.Connect(bus.Config{
			Name: name, Region: Region, InProcess: p.nats.InProcess(),
			Tracer: p.Telemetry.Tracer("usher.internal/libs/bus"), Metrics: p.Telemetry.Registry,
		}, p.Telemetry.Log)
		if err != nil {
			return err
		}
		p.conns[name] = conn
	}
	return p.conns[recorderName].EnsureStreams(ctx, Region, 0)
}

func workerName(i int) string { return fmt.Sprintf("worker%d", i+1) }

// close closes what was opened, the last first. ctx has ended when it is called.
func (p *parts) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, conn := range p.conns {
		errs = append(errs, within(ctx, closeTimeout, conn.Close))
	}
	if p.nats != nil {
		p.nats.Stop()
	}
	if p.store != nil {
		p.store.Close()
	}
	if p.postgres != nil {
		errs = append(errs, within(ctx, stopPostgres, p.postgres.Stop))
	}
	if p.policy != nil {
		p.policy.Close()
	}
	return errors.Join(errs...)
}

func within(ctx context.Context, d time.Duration, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return step(ctx)
}
