package command

import (
	"errors"
	"fmt"
	"os"
	"time"

	"usher.internal/services/usher/creds"
)

// credsCmd groups what makes NATS credentials. It needs the directory of keys and nothing that runs.
type credsCmd struct {
	Init     credsInit     `cmd:"" help:"Make the cluster's keys, and the file that NATS servers include; again after an upgrade."`
	Edge     credsEdge     `cmd:"" help:"Make the credentials of an edge."`
	Worker   credsWorker   `cmd:"" help:"Make the credentials of a worker."`
	Recorder credsRecorder `cmd:"" help:"Make the credentials of a recorder."`
	Region   credsRegion   `cmd:"" help:"Make the credentials with which a region's NATS servers join the hub's."`
	System   credsSystem   `cmd:"" help:"Make credentials that look into the NATS servers themselves."`
}

type keyDir struct {
	Keys creds.Dir `help:"Directory of the cluster's keys: keep it as a CA's." default:"/etc/usher/creds" env:"USHER_CREDS" placeholder:"DIR"`
}

type credsInit struct {
	keyDir
	Hub string `help:"The region of Postgres, policy and control stream; kept for the next time." placeholder:"REGION"`
}

// Run makes what is missing; keys that are there stay.
func (c credsInit) Run(app App) error {
	if err := c.Keys.Init(c.Hub); err != nil {
		return err
	}
	_, err := fmt.Fprintf(app.Out, "%s/%s is written: put it beside the configuration of every NATS server and reload them\n", c.Keys, creds.AccountsFile)
	return err
}

// issued is one process's credentials.
type issued struct {
	keyDir
	Name  string        `arg:"" help:"The name that stands in the process's configuration." placeholder:"NAME"`
	Out   string        `help:"Where to write them; by default NAME.creds here." short:"o" placeholder:"FILE"`
	Valid time.Duration `help:"How long they are good." default:"365d" placeholder:"TIME"`
}

// placed is of a role that has a region.
type placed struct {
	issued
	Region string `help:"The region where it runs." required:"" placeholder:"REGION"`
}

type (
	credsEdge     struct{ placed }
	credsWorker   struct{ placed }
	credsRecorder struct{ issued }
	credsSystem   struct{ issued }
	credsRegion   struct{ issued }
)

// Run makes an edge's credentials.
func (c credsEdge) Run(app App) error { return c.issue(app, creds.Edge, c.Region) }

// Run makes a worker's credentials.
func (c credsWorker) Run(app App) error { return c.issue(app, creds.Worker, c.Region) }

// Run makes a recorder's credentials.
func (c credsRecorder) Run(app App) error { return c.issue(app, creds.Recorder, "") }

// Run makes credentials of the system account.
func (c credsSystem) Run(app App) error { return c.issue(app, creds.System, "") }

// Run makes a region's credentials and says what its configuration needs.
func (c credsRegion) Run(app App) error {
	account, err := c.Keys.Account(creds.Link)
	if err != nil {
		return err
	}
	if err := c.issue(app, creds.Link, c.Name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "LINK_ACCOUNT: %s\n", account)
	return err
}

// issue never writes over a file: the credentials in it may be in use.
func (c issued) issue(app App, role creds.Role, region string) error {
	text, err := c.Keys.Issue(role, c.Name, region, c.Valid)
	if err != nil {
		return err
	}
	if c.Out == "" {
		c.Out = c.Name + ".creds"
	}
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the credentials: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the credentials: %w", err)
	}
	_, err = fmt.Fprintf(app.Out, "%s is written: it lets %s %s in until %s\n", c.Out, role, c.Name, time.Now().Add(c.Valid).Format(time.DateOnly))
	return err
}
