package command

import (
	"context"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
)

// override groups the switch for the night.
type override struct {
	Allow overrideAllow `cmd:"" help:"Let viewers in without asking the checks; with --check, in place of that check's word."`
	Deny  overrideDeny  `cmd:"" help:"Keep viewers out, also those who play now; with --check, in place of that check's word."`
	Limit overrideLimit `cmd:"" help:"Give viewers another number of sessions."`
	List  overrideList  `cmd:"" help:"List overrides in force, the newest first."`
	End   overrideEnd   `cmd:"" help:"End an override before its time."`
}

// overrideFlags are those of every override. It needs an end, at most 30 days from now.
type overrideFlags struct {
	source
	whom
	span
	Check  string `help:"In place of this check's word; of a limit: whom this check lets in." placeholder:"NAME"`
	Reason string `help:"Why: it stands in every decision that the override makes." required:""`
}

func (c overrideFlags) give(ctx context.Context, app App, action directive.Action, limit, hits int) error {
	d, err := order(c.source, app.In, c.whom, c.span, directive.Directive{
		Kind: directive.Override, Action: action, Limit: limit, Check: c.Check, Reason: c.Reason,
	})
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error { return give(ctx, app, s, d, hits) })
}

type overrideAllow struct{ overrideFlags }

// Run lets viewers in.
func (c overrideAllow) Run(ctx context.Context, app App) error {
	return c.give(ctx, app, directive.Allow, 0, 0)
}

type overrideDeny struct {
	overrideFlags
	Hits int `help:"How many users it may hit, where it hits more than 50." aliases:"yes-hits" placeholder:"N"`
}

// Run keeps viewers out.
func (c overrideDeny) Run(ctx context.Context, app App) error {
	return c.give(ctx, app, directive.Deny, 0, c.Hits)
}

type overrideLimit struct {
	Sessions int `arg:"" help:"Sessions at once, in place of the rule's number."`
	overrideFlags
}

// Run gives another number of sessions.
func (c overrideLimit) Run(ctx context.Context, app App) error {
	return c.give(ctx, app, directive.Limit, c.Sessions, 0)
}

type overrideList struct{ directivesList }

// Run lists overrides.
func (c overrideList) Run(ctx context.Context, app App) error {
	return c.run(ctx, app, directive.Override)
}

type overrideEnd struct {
	source
	ID     string `arg:"" help:"The override's id."`
	Reason string `help:"Why." default:"no longer needed"`
}

// Run ends an override.
func (c overrideEnd) Run(ctx context.Context, app App) error {
	id, err := parseID("override", c.ID)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		return end(ctx, app, s, directive.Override, id, c.Reason)
	})
}
