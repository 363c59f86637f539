// Package command is usher's command line. Each command has a file; what they share is
// how they find the cluster (source.go) and how they print (print.go).
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/alecthomas/kong"

	"usher.internal/libs/config"
)

// App is what a command works with besides its own flags.
type App struct {
	// Out gets the answer, Err what is told beside it.
	Out, Err io.Writer
	// In is read where a command is told so by "-"; nil is empty.
	In      io.Reader
	Version string
}

// cli is the whole command line: what is not here does not exist.
type cli struct {
	Up       up       `cmd:"" help:"Run a whole cluster in this process."`
	Edge     edgeCmd  `cmd:"" help:"Run an edge."`
	Worker   workCmd  `cmd:"" help:"Run a worker."`
	Recorder recCmd   `cmd:"" help:"Run a recorder."`
	Policy   policies `cmd:"" help:"Check, apply and show the policy."`
	Sessions sessions `cmd:"" help:"List, show and kill sessions."`
	Bans     bans     `cmd:"" help:"Keep viewers out, whatever the policy says."`
	Override override `cmd:"" help:"For the night: decide in place of the policy, for a while."`
	Users    users    `cmd:"" help:"Show what a user does; own subscribers."`
	Packages packages `cmd:"" help:"Packages of streams, for own subscribers."`
	Checks   checks   `cmd:"" help:"Show how verifiers and middlewares do."`
	Shadow   shadow   `cmd:"" help:"Say what a policy that is tried out would do."`
	History  history  `cmd:"" help:"List decisions of a user, stream or address."`
	Why      why      `cmd:"" help:"Say what happened to a stream, user or address lately."`
	Explain  explain  `cmd:"" help:"Explain one decision step by step, or try out a question."`
	Export   export   `cmd:"" help:"Write what was played, for billing and rights owners."`
	Token    tokens   `cmd:"" help:"Make tokens, and say what is in one and who accepts it."`
	Creds    credsCmd `cmd:"" help:"Make the NATS credentials of edges, workers and recorders."`
	DSN      dsn      `cmd:"" name:"dsn" help:"Print the Postgres connection string in use."`
	Migrate  migrate  `cmd:"" help:"Bring a database to this version's schema."`
	Version  version  `cmd:"" help:"Print the version."`
}

// errSilent ends a command that has said everything already.
var errSilent = errors.New("failed")

// Main runs the command that args name and returns the exit code: 0, 1 for a failure,
// 2 for a command line that cannot be understood.
func Main(ctx context.Context, args []string, app App) (code int) {
	exited := -1
	parser, err := kong.New(&cli{},
		kong.Name("usher"),
		kong.Description("Decides, for every viewer of every streaming server, whether he may play this stream now."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(app.Out, app.Err),
		kong.Exit(func(code int) { exited = code }),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(app),
	)
	if err != nil {
		panic(err) // a mistake in the tags above, found by any test
	}
	kctx, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help has been printed
	}
	if err != nil {
		fmt.Fprintf(app.Err, "usher: %v\nTry: usher --help\n", err)
		return 2
	}
	err = kctx.Run()
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errSilent):
		fmt.Fprintf(app.Err, "usher: %v\n", err)
	}
	return 1
}

// duration reads a length of time as the policy writes it: "15m", "3d".
func duration(c *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := c.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := config.ParseDuration(text)
	if err == nil && d < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	if err != nil {
		return err
	}
	target.SetInt(int64(d))
	return nil
}

type version struct{}

// Run prints the version.
func (version) Run(app App) error {
	_, err := fmt.Fprintln(app.Out, app.Version)
	return err
}
