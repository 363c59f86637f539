// Package cluster runs all of Usher in one process: an embedded NATS server, a private or a
// given Postgres, an edge, workers and a recorder. It is what `usher up` does.
//
// Everything lives in one data directory and goes on with it after a stop, a kill -9
// or a power cut.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"usher.internal/libs/lifecycle"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge"
)

// Region of a cluster in one process.
const Region = "main"

const (
	edgeName     = "edge1"
	recorderName = "recorder1"

	// DefaultWorkers is how many workers run unless told otherwise.
	DefaultWorkers = 2
	maxWorkers     = 64
)

// Options of a cluster.
type Options struct {
	// Data is the directory of everything; made if missing.
	Data Data
	// HTTP is the address where streaming servers ask.
	HTTP string
	// Policy file; "" takes the one in the data directory, where an example is written first.
	Policy string
	// Postgres connection string; "" takes the one given before, else a private server.
	Postgres string
	// Workers is how many run, DefaultWorkers if 0.
	Workers int
	// Pool is how many questions each worker works on at once, 0 for the worker's default.
	Pool int
	// Admin is the private address of health and metrics, "" for none.
	Admin string
	// NATS is the address where other machines reach the embedded server, "" for none.
	NATS string
	// GeoIP is a directory of country databases (*.mmdb), or one of them; "" takes geoip in the
	// data directory, which need not be there.
	GeoIP string
	// Telemetry of the process.
	Telemetry *telemetry.Telemetry
	// Log tells the person who started the cluster how it comes up; nil takes Telemetry's.
	Log *slog.Logger
	// Ready is called once, when every part is ready. May be nil.
	Ready func(Ready)
	// Unsafe turns off fsync in the private Postgres and NATS: for tests.
	Unsafe bool
}

// Ready says where a running cluster is reached.
type Ready struct {
	// HTTP and Admin are the addresses that are listened on; Admin is nil if there is none.
	HTTP, Admin net.Addr
	// DSN of Postgres. It holds a password.
	DSN string
	// NATS is the URL for other machines, "" if it is not listened.
	NATS string
	// Samples are questions to try, for the policy in force.
	Samples []Sample
	// Took is how long the start took.
	Took time.Duration
}

// Run starts the cluster and serves until ctx ends; then it stops in order: the edge answers
// what was asked, workers commit it, the recorder records it, then NATS and Postgres
// stop. All data stay. Errors say what to do next: ErrInUse, an address in use, a
// policy with problems (config.Problems), pgd's errors.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	began := time.Now()
	defer lifecycle.Headroom()()
	lock, err := o.Data.open()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the kernel releases it with the process anyway
	// What can be wrong at once is found before anything is started.
	l, err := listen(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	p, err := open(ctx, o)
	defer func() { err = errors.Join(err, p.close(ctx)) }()
	if err != nil {
		return err
	}
	return p.run(ctx, l, began)
}

func (o *Options) check() error {
	if o.Telemetry == nil {
		return errors.New("cluster: telemetry is needed")
	}
	if o.Log == nil {
		o.Log = o.Telemetry.Log
	}
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Workers < 0 || o.Workers > maxWorkers {
		return fmt.Errorf("--workers is %d, want 1 to %d", o.Workers, maxWorkers)
	}
	if o.Policy == "" {
		o.Policy = o.Data.PolicyFile()
	}
	if o.GeoIP == "" {
		o.GeoIP = o.Data.GeoIPDir()
	}
	return nil
}

// listeners are taken first and given to the parts that serve on them.
type listeners struct{ http, admin net.Listener }

func listen(ctx context.Context, o Options) (l listeners, err error) {
	if l.http, err = listenOn(ctx, "--http", o.HTTP); err != nil {
		return l, err
	}
	if o.Admin == "" {
		return l, nil
	}
	if l.admin, err = listenOn(ctx, "--admin", o.Admin); err != nil {
		l.close()
	}
	return l, err
}

func listenOn(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := edge.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s cannot be used: %w; choose another address with %[1]s HOST:PORT", flag, addr, err)
	}
	return l, nil
}

// close gives the addresses back; whoever served on one has closed it already.
func (l listeners) close() {
	_ = l.http.Close()
	if l.admin != nil {
		_ = l.admin.Close()
	}
}
