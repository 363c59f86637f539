package command

import (
	"context"
	"errors"
	"fmt"
	"os"

	"usher.internal/services/usher/policyfile"
	"usher.internal/services/usher/policyimport"
)

// policyImports reads what was configured elsewhere.
type policyImports struct {
	Flussonic importFlussonic `cmd:"" help:"Read the authorization of a flussonic.conf."`
	Astra     importAstra     `cmd:"" help:"Read users and authorization of Astra's JSON configuration."`
}

type importFile struct {
	File string   `arg:"" help:"The file." placeholder:"FILE"`
	From []string `help:"Addresses that the server asks from; may be given several times." placeholder:"ADDR"`
	Out  string   `help:"Write the policy to this new file and not to the screen." short:"o" placeholder:"FILE"`
}

type importFlussonic struct {
	importFile
	Node string `help:"Name of the server in the policy." default:"fl1"`
}

// Run writes a policy to start from.
func (c importFlussonic) Run(ctx context.Context, app App) error {
	return c.run(ctx, app, c.Node, "", policyimport.Flussonic)
}

type importAstra struct {
	importFile
	Node  string `help:"Name of the server in the policy." default:"astra1"`
	Users string `help:"Write the users to this new file, for usher users import csv." placeholder:"FILE"`
}

// Run writes a policy to start from, and the users.
func (c importAstra) Run(ctx context.Context, app App) error {
	return c.run(ctx, app, c.Node, c.Users, policyimport.Astra)
}

// run reads the file, makes sure that what comes out passes usher policy check, and writes it.
func (c importFile) run(ctx context.Context, app App, node, users string, read func([]byte, policyimport.Options) (*policyimport.Result, error)) error {
	data, err := policyfile.Read(c.File)
	if err != nil {
		return err
	}
	r, err := read(data, policyimport.Options{Node: node, From: c.From})
	if bad, ok := errors.AsType[*policyimport.BadFile](err); ok {
		return fmt.Errorf("%s:%d: %s", c.File, bad.Line, bad.Text)
	}
	if err != nil {
		return err
	}
	p, err := policyfile.Check(ctx, "the policy made of "+c.File, r.Policy, nil)
	if err != nil && !errors.Is(err, policyfile.ErrSecrets) {
		return err
	}
	p.Close()
	if err := c.write(app, users, r); err != nil {
		return err
	}
	fmt.Fprintf(app.Err, "%d lines begin with TODO: what could not be carried over, or needs your hand\n", len(r.Notes))
	return nil
}

func (c importFile) write(app App, users string, r *policyimport.Result) error {
	switch {
	case r.Users == nil:
	case users == "":
		fmt.Fprintln(app.Err, "there are users too: --users FILE writes them for usher users import csv")
	default:
		if err := create(users, r.Users); err != nil {
			return err
		}
		fmt.Fprintf(app.Err, "the users are in %s, with their tokens: usher users import csv %s, then remove it\n", users, users)
	}
	if c.Out == "" {
		_, err := app.Out.Write(r.Policy)
		return err
	}
	return create(c.Out, r.Policy)
}

// create writes a file that was not there: what an operator has worked on is never lost. Only
// its owner may read it, for it may hold tokens.
func create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
