package command

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/subscriber"
)

// packages groups what is done with packages of streams.
type packages struct {
	Add    packagesAdd    `cmd:"" help:"Add a package of streams."`
	Set    packagesSet    `cmd:"" help:"Change a package."`
	List   packagesList   `cmd:"" help:"List packages."`
	Remove packagesRemove `cmd:"" help:"Remove a package that no subscriber has."`
}

type packageArg struct {
	Package string `arg:"" help:"The package's name."`
	Realm   string `help:"Subscriber base, as in the check." default:"main"`
}

var packageName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// compiled checks name and patterns.
func (p packageArg) compiled(streams []string) error {
	if !packageName.MatchString(p.Package) {
		return fmt.Errorf("%q is no name; want 1 to 64 of letters, digits, _, - and dots, not beginning with a dot", p.Package)
	}
	_, err := subscriber.NewPackage(p.Package, streams)
	return err
}

type packagesAdd struct {
	source
	packageArg
	Streams []string `required:"" help:"Names and patterns of streams, as in match." placeholder:"GLOB,…"`
	Comment string   `help:"A note."`
}

// Run adds a package.
func (c packagesAdd) Run(ctx context.Context, app App) error {
	if err := c.compiled(c.Streams); err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := s.AddPackage(ctx, c.Realm, c.Package, c.Streams, c.Comment); err != nil {
			return err
		}
		_, err := fmt.Fprintf(app.Out, "package %s holds %s\n", c.Package, strings.Join(c.Streams, ", "))
		return err
	})
}

type packagesSet struct {
	source
	packageArg
	Streams []string `help:"All its names and patterns of streams." placeholder:"GLOB,…"`
	Comment *string  `help:"A note."`
}

// Run changes a package.
func (c packagesSet) Run(ctx context.Context, app App) error {
	if c.Streams == nil && c.Comment == nil {
		return errors.New("say what to change: --streams or --comment")
	}
	if err := c.compiled(c.Streams); err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := s.SetPackage(ctx, c.Realm, c.Package, c.Streams, c.Comment); err != nil {
			return err
		}
		_, err := fmt.Fprintf(app.Out, "package %s is changed: for new questions within a second, for running sessions when they are decided again\n", c.Package)
		return err
	})
}

type packagesList struct {
	source
	list
	Realm string `help:"Of this realm only."`
}

// Run lists packages.
func (c packagesList) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.PackageRows(ctx, c.Realm, "", c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		lines := make([][]string, len(rows))
		for i, r := range rows {
			lines[i] = []string{account(r.Realm, &r.Name), fmt.Sprint(r.Subscribers), strings.Join(r.Streams, " "), oneLine(r.Comment)}
		}
		return table(app, "no packages: usher packages add basic --streams 'news,sport/*'", "PACKAGE SUBSCRIBERS STREAMS COMMENT", lines)
	})
}

type packagesRemove struct {
	source
	packageArg
}

// Run removes a package.
func (c packagesRemove) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		err := s.RemovePackage(ctx, c.Realm, c.Package)
		if errors.Is(err, pgstore.ErrPackageInUse) {
			return fmt.Errorf("%w; usher users list --package %s shows them", err, c.Package)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(app.Out, "package %s is removed\n", c.Package)
		return err
	})
}
