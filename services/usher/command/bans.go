package command

import (
	"context"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
)

// bans groups what keeps viewers out.
type bans struct {
	Add    bansAdd    `cmd:"" help:"Keep viewers out, on every edge within a second, also those who play now."`
	List   bansList   `cmd:"" help:"List bans in force, the newest first."`
	Remove bansRemove `cmd:"" help:"End a ban."`
}

type bansAdd struct {
	source
	whom
	span
	Reason string `help:"Why: it stands in every decision that the ban makes." required:""`
	Hits   int    `help:"How many users it may hit, where it hits more than 50." aliases:"yes-hits" placeholder:"N"`
}

// Run bans.
func (c bansAdd) Run(ctx context.Context, app App) error {
	d, err := order(c.source, app.In, c.whom, c.span, directive.Directive{Kind: directive.Ban, Action: directive.Deny, Reason: c.Reason})
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error { return give(ctx, app, s, d, c.Hits) })
}

type bansList struct{ directivesList }

// Run lists bans.
func (c bansList) Run(ctx context.Context, app App) error { return c.run(ctx, app, directive.Ban) }

type bansRemove struct {
	source
	ID     string `arg:"" help:"The ban's id."`
	Reason string `help:"Why." required:""`
}

// Run ends a ban.
func (c bansRemove) Run(ctx context.Context, app App) error {
	id, err := parseID("ban", c.ID)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		return end(ctx, app, s, directive.Ban, id, c.Reason)
	})
}
