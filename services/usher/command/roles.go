package command

import (
	"context"
	"errors"
	"fmt"

	"usher.internal/libs/telemetry"
	"usher.internal/services/edge"
	"usher.internal/services/recorder"
	"usher.internal/services/worker"
)

// Each role runs from a file of its own, or only checks it.
type (
	edgeCmd struct {
		Run      edgeRun      `cmd:"" default:"withargs" help:"Run it (the default)."`
		Validate edgeValidate `cmd:"" help:"Only check the file."`
	}
	workCmd struct {
		Run      workRun      `cmd:"" default:"withargs" help:"Run it (the default)."`
		Validate workValidate `cmd:"" help:"Only check the file."`
	}
	recCmd struct {
		Run      recRun      `cmd:"" default:"withargs" help:"Run it (the default)."`
		Validate recValidate `cmd:"" help:"Only check the file."`
	}

	edgeFile struct {
		Config string `help:"The edge's file." default:"/etc/usher/edge.yaml" placeholder:"FILE"`
	}
	workFile struct {
		Config string `help:"The worker's file." default:"/etc/usher/worker.yaml" placeholder:"FILE"`
	}
	recFile struct {
		Config string `help:"The recorder's file." default:"/etc/usher/recorder.yaml" placeholder:"FILE"`
	}

	edgeRun      struct{ edgeFile }
	edgeValidate struct{ edgeFile }
	workRun      struct{ workFile }
	workValidate struct{ workFile }
	recRun       struct {
		recFile
		DiskWatch string `help:"Path on the volume of Postgres's data: when it is 80 % full, the oldest history goes early. In place of disk_watch in the file." type:"path" placeholder:"PATH"`
	}
	recValidate struct{ recFile }
)

// Run runs an edge until a signal.
func (c edgeRun) Run(ctx context.Context, app App) (err error) {
	cfg, err := edge.LoadConfig(c.Config)
	if err != nil {
		return err
	}
	t, err := telemetry.Start(ctx, "edge", app.Version)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTelemetry)
		defer cancel()
		err = errors.Join(err, t.Stop(end))
	}()
	return edge.Main(ctx, cfg, t)
}

// Run checks an edge's file.
func (c edgeValidate) Run(app App) error {
	_, err := edge.LoadConfig(c.Config)
	return good(app, c.Config, err)
}

// Run runs a worker until a signal.
func (c workRun) Run(ctx context.Context, app App) error {
	cfg, err := worker.Load(c.Config)
	if err != nil {
		return err
	}
	return worker.Main(ctx, cfg, app.Version)
}

// Run checks a worker's file.
func (c workValidate) Run(app App) error {
	_, err := worker.Load(c.Config)
	return good(app, c.Config, err)
}

// Run runs a recorder until a signal.
func (c recRun) Run(ctx context.Context, app App) error {
	cfg, err := recorder.Load(c.Config)
	if err != nil {
		return err
	}
	if c.DiskWatch != "" {
		cfg.DiskWatch = c.DiskWatch
	}
	return recorder.Main(ctx, cfg, app.Version)
}

// Run checks a recorder's file.
func (c recValidate) Run(app App) error {
	_, err := recorder.Load(c.Config)
	return good(app, c.Config, err)
}

func good(app App, path string, err error) error {
	if err == nil {
		_, err = fmt.Fprintf(app.Out, "%s is good\n", path)
	}
	return err
}
