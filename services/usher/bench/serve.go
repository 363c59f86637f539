package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"usher.internal/libs/telemetry"
	"usher.internal/services/usher/cluster"
)

// runCluster is the child that `usher up` would be.
func runCluster(ctx context.Context, args []string) error {
	o := cluster.Options{HTTP: "127.0.0.1:0"}
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.StringVar((*string)(&o.Data), "data", "", "")
	f.StringVar(&o.Policy, "policy", "", "")
	f.StringVar(&o.Postgres, "postgres", "", "")
	f.IntVar(&o.Workers, "workers", 0, "")
	f.IntVar(&o.Pool, "pool", 0, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	return asChild(ctx, func(ctx context.Context, ready func(addresses)) (err error) {
		t, err := telemetry.Start(ctx, "bench", "bench")
		if err != nil {
			return err
		}
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			err = errors.Join(err, t.Stop(end))
		}()
		o.Telemetry = t
		o.Ready = func(r cluster.Ready) { ready(addresses{HTTP: addrPort(r.HTTP)}) }
		return cluster.Run(ctx, o)
	})
}
