package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/telemetry"
	"usher.internal/services/usher/cluster"
)

// stopTelemetry is what the last spans may take to leave.
const stopTelemetry = 5 * time.Second

// up runs the whole cluster.
type up struct {
	Data     cluster.Data `help:"Directory of everything that is kept." default:"data" env:"USHER_DATA" placeholder:"DIR"`
	HTTP     string       `name:"http" help:"Address where streaming servers ask." default:"127.0.0.1:8080" placeholder:"ADDR"`
	Policy   string       `help:"Policy file, watched for changes; by default policy.yaml in the data directory, with an example to begin with." placeholder:"FILE"`
	Postgres string       `help:"Use this Postgres (version 15 or newer) and not one of our own; kept for the next start." env:"USHER_POSTGRES" placeholder:"DSN"`
	Workers  int          `help:"How many workers run." default:"2"`
	GeoIP    string       `name:"geoip" help:"Country databases in MaxMind's format: a directory of *.mmdb, or one of them; by default geoip in the data directory. scripts/geoip fetches a free one." placeholder:"DIR"`
	Admin    string       `help:"Private address of /healthz, /readyz and /metrics." placeholder:"ADDR"`
	NATS     string       `name:"nats" help:"Address where workers and edges on other machines connect; they show the token in nats.token." placeholder:"ADDR"`
}

// Run starts the cluster and serves until a signal.
func (c up) Run(ctx context.Context, app App) error {
	t, err := telemetry.Start(ctx, "usher", app.Version)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTelemetry)
		defer cancel()
		_ = t.Stop(end) // spans that cannot leave are no failure of the cluster
	}()
	log := t.Log
	if f, ok := app.Err.(*os.File); ok && isTerminal(f) {
		log = slog.New(newScreen(f, slog.LevelInfo))
		// The services' own life cycle would bury what a person needs to see.
		if os.Getenv(telemetry.LevelEnv) == "" {
			t.Level.Set(slog.LevelWarn)
		}
		t.Log = slog.New(newScreen(f, t.Level))
	}
	quiet := context.AfterFunc(ctx, func() { log.Info("stopping; a second Ctrl-C stops at once") })
	defer quiet()
	err = cluster.Run(ctx, cluster.Options{
		Data: c.Data, HTTP: c.HTTP, Policy: c.Policy, Postgres: c.Postgres, Workers: c.Workers, GeoIP: c.GeoIP, Admin: c.Admin, NATS: c.NATS,
		Telemetry: t, Log: log, Ready: func(r cluster.Ready) { greet(app.Out, c.Data, r) },
	})
	var problems config.Problems
	if errors.As(err, &problems) {
		return fmt.Errorf("the policy has problems, nothing was started:\n%w", err)
	}
	if err == nil {
		log.Info("stopped; the data stay", slog.String("data", string(c.Data)))
	}
	return err
}

// greet says that the cluster is ready and what to try first.
func greet(w io.Writer, data cluster.Data, r cluster.Ready) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("usher is ready: http://%s (in %.1f s)", r.HTTP, r.Took.Seconds())
	p("")
	p("Streaming servers ask here; the policy says who may:")
	for _, s := range r.Samples {
		note := ""
		if !s.Local {
			note = "   (not from this machine)"
		}
		p("  %-8s %s%s", s.Caller, s.URL, note)
	}
	if len(r.Samples) > 0 && r.Samples[0].Allowed != "" && r.Samples[0].Denied != "" {
		p("\nA viewer who may watch (200):\n  %s", r.Samples[0].Allowed)
		p("\nand one who may not (403):\n  %s", r.Samples[0].Denied)
	}
	p("\nWhat was decided, in SQL:\n  %s", sqlLine(data))
	if r.NATS != "" {
		p("\nWorkers and edges on other machines: %s, token in %s", r.NATS, data.TokenFile())
	}
	if r.Admin != nil {
		p("\nHealth and metrics: http://%s/readyz, /metrics", r.Admin)
	}
	p("")
}

func sqlLine(data cluster.Data) string {
	return fmt.Sprintf(`psql "$(%s dsn --data %s)" -c "SELECT at, node, stream, user_id, outcome, reason FROM usher.decisions ORDER BY at DESC LIMIT 10"`,
		self(), shellWord(string(data)))
}

// self is how this program was called, as a shell finds it again.
func self() string {
	if filepath.Base(os.Args[0]) == "usher" {
		return shellWord(os.Args[0])
	}
	return "usher"
}
