package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
)

// shadow groups what is known of a policy that is tried out.
type shadow struct {
	Report shadowReport `cmd:"" help:"Say who would have been refused, by which rule, and where the backend that answers and the policy disagree."`
}

type shadowReport struct {
	source
	list
	Since time.Duration `help:"How far to look back." default:"24h"`
}

// Run reports.
func (c shadowReport) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.Shadow(ctx, time.Now().Add(-c.Since), c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		if len(rows) == 0 {
			_, err = fmt.Fprintf(app.Out, "nothing was decided in shadow in the last %s; enforce: off on a node, a rule or a limit begins it\n", short(c.Since))
			return err
		}
		return reportShadow(app, rows)
	})
}

func reportShadow(app App, rows []pgstore.ShadowRow) error {
	var all, same int64
	var differ [][]string
	for i := range rows {
		r := &rows[i]
		if all += r.Decisions; !r.Differs() {
			same += r.Decisions
			continue
		}
		examples := make([]string, len(r.Examples))
		for j, id := range r.Examples {
			examples[j] = id.String()
		}
		differ = append(differ, []string{
			shadowWords(r), text(r.Rule), r.Node, fmt.Sprint(r.Decisions), fmt.Sprint(r.Viewers), r.TopStream, ago(r.Last), strings.Join(examples[:1], " "),
		})
	}
	fmt.Fprintf(app.Out, "%d answers in shadow; in %d (%.2f %%) the policy would have done the same\n\n", all, same, 100*float64(same)/float64(all))
	return table(app, "enforced, the policy would have changed nothing", "IT-WOULD-HAVE\tRULE\tNODE\tANSWERS\tVIEWERS\tMOST-ON\tLAST\tEXAMPLE", differ)
}

// shadowWords says what enforcement would have changed.
func shadowWords(r *pgstore.ShadowRow) string {
	why := text(r.WouldReason)
	switch {
	case r.Outcome != string(access.Allow) && r.Would == string(access.Allow):
		return "let in (" + why + ") whom the backend " + backendWord(r.Outcome)
	case r.Outcome != string(access.Allow):
		return policyWord(r.Would) + " (" + why + ") whom the backend " + backendWord(r.Outcome)
	case r.Would == string(access.Allow):
		return "ended older sessions (" + why + ")"
	case r.Reason == string(access.Granted):
		return policyWord(r.Would) + " (" + why + ") whom the backend lets in"
	}
	return policyWord(r.Would) + " (" + why + ")"
}

// policyWord is what the policy would have done with whom it does not let in.
func policyWord(outcome string) string {
	if outcome == string(access.Redirect) {
		return "sent elsewhere"
	}
	return "refused"
}

// backendWord is what the backend does with whom it does not let in.
func backendWord(outcome string) string {
	if outcome == string(access.Redirect) {
		return "sends elsewhere"
	}
	return "refuses"
}
