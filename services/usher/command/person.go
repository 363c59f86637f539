package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
)

// person is one user of one realm.
type person struct {
	source
	User  string `arg:"" help:"The user's id."`
	Realm string `help:"His realm." default:"main"`
}

type exportPerson struct{ person }

// Run writes everything that is known of a user as one JSON document: an object with an array a table.
func (c exportPerson) Run(ctx context.Context, app App) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	out := bufio.NewWriter(app.Out)
	head, err := json.Marshal(map[string]any{"realm": c.Realm, "user_id": c.User, "exported_at": time.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	fmt.Fprintf(out, "%s", head[:len(head)-1]) // a fault stays in out until Flush
	open, n := "", 0
	p := &progress{out: app.Err, what: "rows", next: time.Now().Add(progressEvery)}
	err = store.ExportUser(ctx, c.Realm, c.User, func(table string, row json.RawMessage) error {
		p.step()
		n++
		switch {
		case table == open:
			fmt.Fprint(out, ",\n  ")
		case open != "":
			fmt.Fprintf(out, "],\n%q: [\n  ", table)
		default:
			fmt.Fprintf(out, ",\n%q: [\n  ", table)
		}
		open = table
		_, err := out.Write(row)
		return err
	})
	if err != nil {
		return err
	}
	if open != "" {
		fmt.Fprint(out, "]")
	}
	fmt.Fprintln(out, "}")
	if n == 0 {
		fmt.Fprintf(app.Err, "nothing is known of user %s of realm %s\n", c.User, c.Realm)
	}
	return out.Flush()
}

type usersForget struct {
	person
	Force bool `help:"Also if he plays now or a ban or override on him is in force: his sessions end, and so do those."`
	JSON  bool `help:"Print JSON."`
}

// Run takes a user out of everything that is kept.
func (c usersForget) Run(ctx context.Context, app App) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	if c.Force {
		if err := c.end(ctx, app, store); err != nil {
			return err
		}
	}
	done, err := store.Forget(ctx, c.Realm, c.User, whoami())
	switch {
	case errors.Is(err, pgstore.ErrPlaying):
		return fmt.Errorf("user %s of realm %s plays now: nothing was changed; --force ends his sessions first", c.User, c.Realm)
	case errors.Is(err, pgstore.ErrOrdered):
		return fmt.Errorf("a ban or an override on user %s of realm %s is in force, and cannot hold without his name: nothing was changed; --force ends it first", c.User, c.Realm)
	case err != nil:
		return err
	case c.JSON:
		return printJSON(app, done)
	}
	rows := make([][]string, len(done.Tables))
	for i, t := range done.Tables {
		rows[i] = []string{t.Table, fmt.Sprint(t.Rows)}
	}
	if err := table(app, "nothing was known of him", "TABLE ROWS", rows); err != nil {
		return err
	}
	fmt.Fprintf(app.Out, "\nforgotten; the audit names him %s\nwhat is still under way of the time before is recorded without him until %s\n"+
		"NATS keeps what was sent for up to 3 days, edges keep whom they let in for the policy's grace_known, and backups keep what they hold\n",
		done.Print, done.Until.UTC().Format(time.DateOnly))
	return nil
}

// end ends what keeps the user from being forgotten.
func (c usersForget) end(ctx context.Context, app App, store *pgstore.Store) error {
	all, err := store.Directives(ctx)
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Realm != c.Realm || d.User != c.User {
			continue
		}
		if d.Kind != directive.Ban && d.Kind != directive.Override {
			continue
		}
		if _, err := store.RevokeDirective(ctx, d.Kind, d.ID, whoami(), "the user is forgotten"); err != nil {
			return err
		}
		fmt.Fprintf(app.Err, "%s %s has ended\n", d.Kind, d.ID)
	}
	rows, err := store.Sessions(ctx, pgstore.SessionFilter{Realm: c.Realm, User: c.User, Limit: 1 << 20})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := store.KillSession(ctx, r.ID, 0); err != nil {
			return err
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(app.Err, "ended %d sessions; refused on every edge within a second\n", len(rows))
	}
	return nil
}
