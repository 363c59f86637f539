// Command usher-recorder runs one recorder. `usher-recorder validate` only checks its file.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"usher.internal/services/recorder"
)

// version is set by the linker.
var version = "dev"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "usher-recorder:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	validate := len(args) > 0 && args[0] == "validate"
	if validate {
		args = args[1:]
	}
	flags := flag.NewFlagSet("usher-recorder [validate]", flag.ExitOnError)
	path := flags.String("config", "/etc/usher/recorder.yaml", "the recorder's configuration `file`")
	disk := flags.String("disk-watch", "", "`path` on the volume of Postgres's data: when it is 80 % full, the oldest history goes early")
	show := flags.Bool("version", false, "print the version and stop")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *show {
		fmt.Println(version)
		return nil
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	cfg, err := recorder.Load(*path)
	if err != nil || validate {
		return err
	}
	if *disk != "" {
		cfg.DiskWatch = *disk
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return recorder.Main(ctx, cfg, version)
}
