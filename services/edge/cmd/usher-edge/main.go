// Command usher-edge is the edge alone, for places where less should be linked: it
// holds neither a database driver nor a NATS server.
//
//	usher-edge --config edge.yaml            run until SIGTERM or SIGINT
//	usher-edge validate --config edge.yaml   check the file and say what is wrong
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"usher.internal/libs/telemetry"
	"usher.internal/services/edge"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	validate := len(args) > 0 && args[0] == "validate"
	if validate {
		args = args[1:]
	}
	flags := flag.NewFlagSet("usher-edge", flag.ExitOnError)
	file := flags.String("config", "/etc/usher/edge.yaml", "the edge's configuration `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg, err := edge.LoadConfig(*file)
	if err != nil || validate {
		return err
	}
	t, err := telemetry.Start(ctx, "edge", version)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, t.Stop(end))
	}()
	return edge.Main(ctx, cfg, t)
}
