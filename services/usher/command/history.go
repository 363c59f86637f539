package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.internal/libs/pgstore"
)

// subject is whom or what a question of the operator is about.
type subject struct {
	User   string `help:"This user."`
	Realm  string `help:"Of this realm only."`
	Stream string `help:"This stream."`
	IP     string `name:"ip" help:"This viewer's address."`
}

var errNoSubject = errors.New("say what it is about: --user, --stream or --ip")

// filter is the subject since a time. At least one thing must be named.
func (s subject) filter(since time.Duration) (pgstore.DecisionFilter, error) {
	if s.User == "" && s.Stream == "" && s.IP == "" {
		return pgstore.DecisionFilter{}, errNoSubject
	}
	ip, err := parseIP(s.IP)
	if since <= 0 && err == nil {
		err = errors.New("--since is how far to look back, such as 15m or 24h")
	}
	return pgstore.DecisionFilter{
		User: s.User, Realm: s.Realm, Stream: s.Stream, IP: ip, Since: time.Now().Add(-since),
	}, err
}

// history lists decisions.
type history struct {
	source
	list
	subject
	Since   time.Duration `help:"How far to look back." default:"24h"`
	Outcome string        `help:"Only these." enum:",allow,deny,redirect" default:""`
}

// Run lists decisions, the newest first.
func (c history) Run(ctx context.Context, app App) error {
	f, err := c.filter(c.Since)
	if err != nil {
		return err
	}
	f.Outcome, f.Limit = c.Outcome, c.Limit
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.Decisions(ctx, f)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		none := fmt.Sprintf("no decisions in the last %s; usher why says whether any node asked at all", short(c.Since))
		return table(app, none, decisionHead, decisionTable(rows))
	})
}

const decisionHead = "AT OUTCOME REASON USER STREAM NODE ADDRESS REPEATS DECISION"

func decisionTable(rows []pgstore.DecisionRow) [][]string {
	out := make([][]string, len(rows))
	for i, r := range rows {
		out[i] = []string{
			clock(r.At), r.Outcome + instead(&r), r.Reason, account(r.Realm, r.User), r.Stream, r.Node, address(r.IP),
			fmt.Sprint(r.Repeats), r.ID.String(),
		}
	}
	return out
}

// instead is what an enforced policy would have said in place of what it did.
func instead(r *pgstore.DecisionRow) string {
	if r.Would == nil || *r.Would == r.Outcome {
		return ""
	}
	return " (would " + *r.Would + ": " + text(r.WouldReason) + ")"
}

type usersShow struct {
	source
	list
	User  string        `arg:"" help:"The user's id."`
	Realm string        `help:"Of this realm only."`
	Since time.Duration `help:"How far to look back." default:"24h"`
}

// Run shows a user.
func (c usersShow) Run(ctx context.Context, app App) error {
	f, err := subject{User: c.User, Realm: c.Realm}.filter(c.Since)
	if err != nil {
		return err
	}
	f.Limit = c.Limit
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.Sessions(ctx, pgstore.SessionFilter{User: c.User, Realm: c.Realm, Closed: true, Since: f.Since, Limit: c.Limit})
		if err != nil {
			return err
		}
		decisions, err := s.Decisions(ctx, f)
		if err != nil {
			return err
		}
		own, err := s.SubscriberRows(ctx, pgstore.SubscriberFilter{Realm: c.Realm, User: c.User})
		if err != nil {
			return err
		}
		if c.JSON {
			orders, err := active(ctx, s)
			if err != nil {
				return err
			}
			return printJSON(app, map[string]any{
				"user_id": c.User, "overrides": toJSON(orders), "subscribers": own, "sessions": rows, "decisions": decisions,
			})
		}
		if err := printActive(ctx, app, s); err != nil {
			return err
		}
		for i := range own {
			describe(app.Out, &own[i])
		}
		playing := 0
		for _, r := range rows {
			if r.ClosedAt == nil {
				playing++
			}
		}
		fmt.Fprintf(app.Out, "%s plays %d now; %d sessions in the last %s\n\n", c.User, playing, len(rows), short(c.Since))
		if err := table(app, "no sessions", sessionHead, sessionTable(rows)); err != nil {
			return err
		}
		fmt.Fprintln(app.Out)
		return table(app, "no decisions", decisionHead, decisionTable(decisions))
	})
}

// short is a duration without zero units.
func short(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return d.String()
}
