// Bench measures what DESIGN.md §8 promises, each figure as a ratio to a yardstick of the same
// run. It starts everything itself: a private PostgreSQL with fsync, whole clusters as `usher
// up` runs them, the yardsticks, and the load.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	duration time.Duration
	rounds   int
	only     string
	profile  string
	results  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			return role(ctx, args[1:])
		}
	}
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.DurationVar(&o.duration, "duration", 2*time.Second, "measured time of each round of each path")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each path; the median counts")
	f.StringVar(&o.only, "only", "", "measure only paths whose name begins with one of these, comma-separated: "+strings.Join(names(), " "))
	f.StringVar(&o.profile, "profile", "", "directory for CPU profiles of each path")
	f.StringVar(&o.results, "results", "bin/bench.json", "file that keeps the results, to show beside the next ones")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.rounds < 1 || o.duration < 100*time.Millisecond || f.NArg() > 0 {
		return errors.New("want -rounds of at least 1, a -duration of at least 100ms, and no arguments")
	}
	return measure(ctx, o, out)
}
