package command

import (
	"context"
	"fmt"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
)

type usersBlock struct {
	source
	User   string `arg:"" help:"The user's id."`
	Realm  string `help:"His realm." default:"main"`
	Reason string `help:"Why: it stands in every refusal." required:""`
}

// Run bans a user without end, ends his sessions, and what middlewares granted to him: some, such
// as Ministra, cannot take back themselves what they granted.
func (c usersBlock) Run(ctx context.Context, app App) error {
	d, err := order(c.source, app.In, whom{User: c.User, Realm: c.Realm}, span{}, directive.Directive{
		Kind: directive.Ban, Action: directive.Deny, Reason: c.Reason,
	})
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := give(ctx, app, s, d, quietUsers); err != nil {
			return err
		}
		n, err := s.RevokeGrants(ctx, d.Realm, d.User)
		if err != nil {
			return fmt.Errorf("he is banned, but what middlewares granted to him could not be ended, run this again: %w", err)
		}
		if n > 0 {
			fmt.Fprintf(app.Out, "grants of middlewares ended: %d\n", n)
		}
		return c.elsewhere(ctx, app, s)
	})
}

// elsewhere says where a user of that id plays who is another one.
func (c usersBlock) elsewhere(ctx context.Context, app App, s *pgstore.Store) error {
	rows, err := s.Sessions(ctx, pgstore.SessionFilter{User: c.User})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Realm != c.Realm {
			fmt.Fprintf(app.Err, "usher: a user %s plays in realm %s; if he is meant, block him with --realm %s\n", c.User, r.Realm, r.Realm)
			return nil
		}
	}
	return nil
}

type usersUnblock struct {
	source
	User   string `arg:"" help:"The user's id."`
	Realm  string `help:"His realm." default:"main"`
	Reason string `help:"Why." required:""`
}

// Run ends every ban that is on the user and nothing else.
func (c usersUnblock) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		all, err := s.Directives(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, d := range all {
			if !c.means(d) {
				continue
			}
			found = true
			if err := end(ctx, app, s, directive.Ban, d.ID, c.Reason); err != nil {
				return err
			}
		}
		if !found {
			return fmt.Errorf("user %s of realm %s is not blocked; usher bans list shows who is", c.User, c.Realm)
		}
		return nil
	})
}

func (c usersUnblock) means(d directive.Directive) bool {
	plain := directive.Directive{
		ID: d.ID, Kind: directive.Ban, Action: directive.Deny, Realm: c.Realm, User: c.User,
		Until: d.Until, At: d.At, Reason: d.Reason, Author: d.Author,
	}
	return d == plain
}
