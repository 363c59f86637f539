package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/admission"
	"usher.internal/libs/config"
	"usher.internal/libs/decide"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
)

// quietUsers is how many users a directive may end without being asked twice.
const quietUsers = 50

// give brings a directive into force. hits is what the operator said that it would hit.
func give(ctx context.Context, app App, s *pgstore.Store, d directive.Directive, hits int) error {
	if d.Action == directive.Deny && hits == 0 && d.Everybody() {
		return fmt.Errorf("nothing was done: it would keep everybody out (%s), also who does not play now; if that is what you want, say so with --hits and the number of users who play", d.Criteria())
	}
	if err := exist(ctx, s, &d); err != nil {
		return err
	}
	ended, err := s.Direct(ctx, d, max(hits, quietUsers))
	var many *pgstore.TooManyError
	if errors.As(err, &many) {
		return fmt.Errorf("nothing was done: %w (%s); if that is what you want, say so with --hits %d", many, d.Criteria(), many.Hits.Users)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "%s %s: %s, %s; in force on every edge within a second%s\n",
		d.Kind, d.ID, d.Criteria(), untilWords(d.Until), endedWords(d, ended))
	return err
}

// exist refuses a directive that names a check or node which the policy in force does not have: a
// slip at night would look as if it had done something.
func exist(ctx context.Context, s *pgstore.Store, d *directive.Directive) error {
	if d.Check == "" && d.Node == "" {
		return nil
	}
	row, err := s.CurrentPolicy(ctx)
	if err != nil || row == nil {
		return err
	}
	in, err := policy.Parse("policy", []byte(row.Source), decide.Kinds())
	if err != nil {
		return nil // another version's: what it names is not known here
	}
	return errors.Join(named("check", d.Check, slices.Sorted(maps.Keys(in.Checks))), named("node", d.Node, slices.Sorted(maps.Keys(in.Nodes))))
}

func named(what, name string, known []string) error {
	if name == "" || slices.Contains(known, name) {
		return nil
	}
	if near := config.Nearest(name, known); near != "" {
		return fmt.Errorf("nothing was done: the policy in force has no %s %s; did you mean %s?", what, name, near)
	}
	return fmt.Errorf("nothing was done: the policy in force has no %s %s; it has %s", what, name, strings.Join(known, ", "))
}

func endedWords(d directive.Directive, ended []admission.Ended) string {
	switch {
	case d.Action != directive.Deny || d.Check != "":
		return ""
	case len(ended) == 0:
		return "; nobody whom it hits plays now"
	case len(ended) == 1:
		return "; it ended one session"
	}
	return fmt.Sprintf("; it ended %d sessions", len(ended))
}

func untilWords(t time.Time) string {
	if t.IsZero() {
		return "without end"
	}
	return "until " + clock(t)
}

// end revokes a directive.
func end(ctx context.Context, app App, s *pgstore.Store, kind directive.Kind, id uuid.UUID, reason string) error {
	done, err := s.RevokeDirective(ctx, kind, id, whoami(), reason)
	if err != nil {
		return err
	}
	if !done {
		return fmt.Errorf("no %s %s is in force; usher %s list shows those that are", kind, id, group(kind))
	}
	_, err = fmt.Fprintf(app.Out, "%s %s is over on every edge within a second\n", kind, id)
	return err
}

func group(kind directive.Kind) string {
	if kind == directive.Ban {
		return "bans"
	}
	return string(kind)
}

// directiveJSON is a directive as the tools print it, in the words of the views.
type directiveJSON struct {
	ID            uuid.UUID     `json:"id"`
	Action        string        `json:"action"`
	Limit         int           `json:"limit,omitempty"`
	Realm         string        `json:"realm,omitempty"`
	User          string        `json:"user_id,omitempty"`
	Network       *netip.Prefix `json:"network,omitempty"`
	Stream        string        `json:"stream,omitempty"`
	Node          string        `json:"node,omitempty"`
	Check         string        `json:"check_name,omitempty"`
	Device        string        `json:"device,omitempty"`
	Token         string        `json:"token,omitempty"`
	At            time.Time     `json:"at"`
	Until         *time.Time    `json:"until"`
	Reason        string        `json:"reason"`
	Author        string        `json:"author"`
	RevokedAt     *time.Time    `json:"revoked_at,omitempty"`
	RevokedBy     string        `json:"revoked_by,omitempty"`
	RevokedReason string        `json:"revoked_reason,omitempty"`
}

func toJSON(rows []pgstore.DirectiveRow) []directiveJSON {
	out := make([]directiveJSON, len(rows))
	for i := range rows {
		r := &rows[i]
		out[i] = directiveJSON{
			ID: r.ID, Action: string(r.Action), Limit: r.Limit, Realm: r.Realm, User: r.User, Stream: r.Stream, Node: r.Node,
			Check: r.Check, Device: r.Device, At: r.At, Reason: r.Reason, Author: r.Author,
			RevokedAt: r.RevokedAt, RevokedBy: r.RevokedBy, RevokedReason: r.RevokedReason,
		}
		if r.Network.IsValid() {
			out[i].Network = &r.Network
		}
		if !r.Token.IsZero() {
			out[i].Token = r.Token.String()
		}
		if !r.Until.IsZero() {
			out[i].Until = &r.Until
		}
	}
	return out
}

// directivesList lists directives of a kind.
type directivesList struct {
	source
	list
	All bool `help:"Those that are over too; they are kept for 90 days."`
}

func (c directivesList) run(ctx context.Context, app App, kind directive.Kind) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.DirectiveRows(ctx, pgstore.DirectiveFilter{Kind: kind, Ended: c.All, Limit: c.Limit})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, toJSON(rows))
		}
		return table(app, "none is in force", "ID WHAT WHOM GIVEN UNTIL AUTHOR REASON", directiveTable(rows, time.Now()))
	})
}

func directiveTable(rows []pgstore.DirectiveRow, now time.Time) [][]string {
	out := make([][]string, len(rows))
	for i := range rows {
		r := &rows[i]
		until := strings.TrimPrefix(untilWords(r.Until), "until ")
		switch {
		case r.RevokedAt != nil:
			until = "ended " + clock(*r.RevokedAt) + " by " + r.RevokedBy
		case !r.Active(now):
			until = "over " + clock(r.Until)
		}
		out[i] = []string{r.ID.String(), what(&r.Directive), r.Criteria(), clock(r.At), until, r.Author, r.Reason}
	}
	return out
}

// what a directive does, in a word or two.
func what(d *directive.Directive) string {
	switch {
	case d.Kind == directive.Ban:
		return "ban"
	case d.Action == directive.Limit:
		return fmt.Sprintf("limit %d", d.Limit)
	}
	return string(d.Action)
}

// maxActive is how many overrides are listed before the state of something else.
const maxActive = 20

// active are the overrides in force. They are shown first wherever state is: at night nobody
// remembers what was ordered the night before.
func active(ctx context.Context, s *pgstore.Store) ([]pgstore.DirectiveRow, error) {
	return s.DirectiveRows(ctx, pgstore.DirectiveFilter{Kind: directive.Override, Limit: maxActive + 1})
}

// printActive prints the overrides in force before anything else.
func printActive(ctx context.Context, app App, s *pgstore.Store) error {
	rows, err := active(ctx, s)
	if err != nil || len(rows) == 0 {
		return err
	}
	fmt.Fprintln(app.Out, "Overrides in force:")
	for i := range rows {
		if i == maxActive {
			fmt.Fprintln(app.Out, "  … (usher override list)")
			break
		}
		r := &rows[i]
		fmt.Fprintf(app.Out, "  %s %s, %s, by %s: %s (usher override end %s)\n",
			what(&r.Directive), r.Criteria(), untilWords(r.Until), r.Author, r.Reason, r.ID)
	}
	_, err = fmt.Fprintln(app.Out)
	return err
}
