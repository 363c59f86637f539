// Command usher is the one binary: `usher up` runs a whole cluster in one process, `usher
// edge|worker|recorder` one role, and the rest are the operator's tools.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"usher.internal/services/usher/command"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process at once, whatever it waits for.
	context.AfterFunc(ctx, stop)
	code := command.Main(ctx, os.Args[1:], command.App{Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Version: version})
	stop()
	os.Exit(code)
}
