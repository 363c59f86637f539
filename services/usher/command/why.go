package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
)

// lookBack is how far `why` looks for the last question when there was none lately.
const lookBack = 30 * 24 * time.Hour

// why answers the question of the night.
type why struct {
	source
	subject
	JSON  bool          `help:"Print JSON." name:"json"`
	Since time.Duration `help:"How far to look back." default:"15m"`
}

// answer is what why found out.
type answer struct {
	Subject string                `json:"subject"`
	Since   time.Time             `json:"since"`
	Asked   int64                 `json:"asked"`
	Allowed int64                 `json:"allowed"`
	Last    *time.Time            `json:"last_asked"`
	Nodes   []pgstore.NodeShare   `json:"nodes"`
	Reasons []pgstore.ReasonShare `json:"reasons"`
	Playing []pgstore.SessionRow  `json:"playing"`
	// Overrides are those in force, whomever they hit.
	Overrides []directiveJSON `json:"overrides"`
}

// Run says in words whether any node asked, when last, what share was allowed and who
// refused the rest.
func (c why) Run(ctx context.Context, app App) error {
	f, err := c.filter(c.Since)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		a, err := c.ask(ctx, s, f)
		if err != nil {
			return err
		}
		if c.JSON {
			orders, err := active(ctx, s)
			if err != nil {
				return err
			}
			a.Overrides = toJSON(orders)
			return printJSON(app, a)
		}
		if err := printActive(ctx, app, s); err != nil {
			return err
		}
		_, err = fmt.Fprint(app.Out, a.words(c.Since))
		return err
	})
}

func (c why) ask(ctx context.Context, s *pgstore.Store, f pgstore.DecisionFilter) (a answer, err error) {
	a.Subject, a.Since = c.name(), f.Since
	if a.Nodes, err = s.NodeShares(ctx, f); err != nil {
		return a, err
	}
	for _, n := range a.Nodes {
		a.Asked += n.Asked
		a.Allowed += n.Allowed
		if n.LastAsked != nil && (a.Last == nil || n.LastAsked.After(*a.Last)) {
			a.Last = n.LastAsked
		}
	}
	if a.Reasons, err = s.ReasonShares(ctx, f); err != nil {
		return a, err
	}
	if a.Last == nil {
		far := f
		far.Since = time.Now().Add(-lookBack)
		if a.Last, err = s.LastAsked(ctx, far); err != nil {
			return a, err
		}
	}
	a.Playing, err = s.Sessions(ctx, pgstore.SessionFilter{User: f.User, Realm: f.Realm, Stream: f.Stream, IP: f.IP})
	return a, err
}

func (c why) name() string {
	var parts []string
	for _, p := range []struct{ what, value string }{{"user", c.User}, {"realm", c.Realm}, {"stream", c.Stream}, {"address", c.IP}} {
		if p.value != "" {
			parts = append(parts, p.what+" "+p.value)
		}
	}
	return strings.Join(parts, ", ")
}

// words tells the answer as one operator would tell another.
func (a *answer) words(since time.Duration) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	switch {
	case a.Asked > 0:
		p("%s: asked %s in the last %s, the last time %s; %d %% allowed.", a.Subject, times(a.Asked), short(since), ago(*a.Last), a.Allowed*100/a.Asked)
	case a.Last != nil:
		p("%s: no node asked in the last %s; the last question came %s.", a.Subject, short(since), ago(*a.Last))
	default:
		p("%s: no node asked, not once in the last 30 days. Is the name right, as the streaming server calls it?", a.Subject)
	}
	a.nodeWords(p, since)
	a.reasonWords(p)
	for i, s := range a.Playing {
		if i == 0 {
			p("\nPlaying now: %d (answers from an edge's memory leave no question here)", len(a.Playing))
		}
		if i == 5 {
			p("  …")
			break
		}
		p("  %s on %s at %s, last seen %s", account(s.Realm, s.User), s.Stream, s.Node, ago(s.LastSeenAt))
	}
	return b.String()
}

func (a *answer) nodeWords(p func(string, ...any), since time.Duration) {
	if len(a.Nodes) == 0 {
		p("\nNo node asked about anybody in the last %s: do the streaming servers reach the edge? (usher explain --url tries the policy without them)", short(since))
		return
	}
	p("\nBy node:")
	for _, n := range a.Nodes {
		if n.Asked == 0 {
			p("  %s (%s) asked about others %s, never about this", n.Node, n.Caller, ago(n.LastAny))
			continue
		}
		p("  %s (%s at %s) asked %s, %d allowed, last %s", n.Node, n.Caller, n.Edge, times(n.Asked), n.Allowed, ago(*n.LastAsked))
	}
}

func (a *answer) reasonWords(p func(string, ...any)) {
	first := true
	for _, r := range a.Reasons {
		if r.Outcome == string(access.Allow) {
			continue
		}
		if first {
			p("\nRefused:")
			first = false
		}
		by := ""
		if r.Check != "" {
			by = " by " + r.Check
		}
		p("  %s %s%s: %s", times(r.Count), r.Reason, by, reasonText(r))
	}
}

func reasonText(r pgstore.ReasonShare) string {
	if r.Text != "" {
		return r.Text
	}
	return access.Reason(r.Reason).Text()
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
