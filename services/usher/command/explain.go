package command

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/usher/viewer"
)

// explain tells how a decision came about, or what one would be.
type explain struct {
	source
	Decision string   `arg:"" optional:"" help:"Id of a decision, as in X-Usher-Decision."`
	URL      string   `name:"url" help:"Try out what a viewer who opens this would get; takes no seat, writes nothing, but asks middlewares."`
	Node     string   `help:"The node that would ask."`
	Channel  string   `help:"The channel's id, as Astra sends it beside the URL."`
	IP       string   `name:"ip" help:"The viewer's address; 192.0.2.1 if left out."`
	UA       string   `name:"ua" help:"The viewer's user agent."`
	Header   []string `help:"One more header of the viewer, NAME:VALUE." sep:"none" placeholder:"NAME:VALUE"`
	Policy   string   `help:"Try it on this file in place of the policy in force." placeholder:"FILE"`
	JSON     bool     `help:"Print JSON." name:"json"`
}

// Run explains a decision, or tries out a question.
func (c explain) Run(ctx context.Context, app App) error {
	switch {
	case c.Decision != "" && c.URL == "":
		return c.stored(ctx, app)
	case c.URL != "" && c.Decision == "" && c.Node != "":
		return c.dry(ctx, app)
	case c.URL != "":
		return errors.New("say which node would ask: --node NAME, as the policy lists it")
	}
	return errors.New("give the id of a decision (X-Usher-Decision, or from usher history), or --url URL --node NODE")
}

func (c explain) stored(ctx context.Context, app App) error {
	id, err := parseID("decision", c.Decision)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		d, err := patiently(ctx, s, id)
		if err != nil {
			return err
		}
		if d == nil {
			return fmt.Errorf("no decision %s: it may be older than the policy's retention keeps, or still on its way from an edge; usher history lists what there is", id)
		}
		if c.JSON {
			return printJSON(app, d)
		}
		p := printer(app)
		p("%s at %s: %s, %s (%s)", d.ID, clock(d.At), d.Outcome, d.Reason, access.Reason(d.Reason).Text())
		p("  node %s (%s) at edge %s asked about stream %s for %s, user %s", d.Node, d.Caller, d.Edge, d.Stream, address(d.IP), account(d.Realm, d.User))
		p("  policy revision %d, %.1f ms, repeated %d times", d.PolicyRevision, float64(d.DurationMicros)/1000, d.Repeats)
		if d.Would != nil {
			p("  tried out: enforced, the policy would have said %s (%s) by %s", *d.Would, text(d.WouldReason), text(d.WouldRule))
		}
		if d.Session != nil {
			p("  session %s", d.Session)
		}
		p("  trace %s", text(d.TraceID))
		steps(p, d.Steps)
		return nil
	})
}

// onItsWay is how long a row may take from an edge that decided by itself to Postgres.
const onItsWay = 3 * time.Second

// patiently waits for the row of a decision that was made just now.
func patiently(ctx context.Context, s *pgstore.Store, id uuid.UUID) (*pgstore.DecisionRow, error) {
	for {
		d, err := s.Decision(ctx, id)
		sec, nsec := id.Time().UnixTime()
		if d != nil || err != nil || time.Since(time.Unix(sec, nsec)).Abs() > onItsWay {
			return d, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(onItsWay / 10):
		}
	}
}

// dry judges a question that nobody asked.
func (c explain) dry(ctx context.Context, app App) error {
	p, err := c.source.policy(ctx, c.Policy)
	if err != nil {
		return err
	}
	defer p.Close()
	node := p.Snapshot.Nodes[c.Node]
	if node == nil {
		return fmt.Errorf("the policy has no node %q; usher policy show prints it", c.Node)
	}
	r, err := c.question(p)
	if err != nil {
		return err
	}
	if c.Policy == "" {
		if err := c.under(ctx, p); err != nil {
			return err
		}
	}
	v, err := policyfile.Judge(ctx, p, node, r)
	if err != nil {
		return fmt.Errorf("the edge itself would refuse the question: %w", err)
	}
	if c.JSON {
		return printJSON(app, verdict(v))
	}
	tell(printer(app), v)
	return nil
}

// under has the policy in force judge as workers do, under the bans and overrides in force.
func (c explain) under(ctx context.Context, p *policyfile.Policy) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		list, err := s.Directives(ctx)
		p.Under(directive.NewSet(list...))
		return err
	})
}

func tell(p func(string, ...any), v decide.Verdict) {
	p("%s, %s: %s", v.Outcome, v.Reason, v.Text)
	if v.Rule != nil && v.Rule.Name() != "" {
		p("  by %s, line %d", v.Rule.Name(), v.Rule.Line)
	}
	if v.User != "" {
		p("  user %s", account(v.Realm, &v.User))
	}
	if v.Limited() && v.Outcome == access.Allow {
		p("  %s; seats are not looked at here", v.LimitWords())
	}
	if v.Location != "" {
		p("  sent to %s", v.Location)
	}
	steps(p, v.Steps)
}

func (c explain) question(p *policyfile.Policy) (*http.Request, error) {
	ip, err := parseIP(c.IP)
	if err != nil {
		return nil, err
	}
	if !ip.IsValid() {
		ip = policy.ExampleIP
	}
	header := http.Header{}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q: want NAME:VALUE", h)
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return viewer.Question(p.Snapshot.Nodes[c.Node], viewer.Viewer{
		URL: c.URL, Channel: c.Channel, IP: ip, UserAgent: c.UA, Header: header,
	}, "http://edge")
}

// verdict is what a dry run found, as JSON.
func verdict(v decide.Verdict) any {
	rule := ""
	if v.Rule != nil {
		rule = v.Rule.Name()
	}
	return struct {
		Outcome  access.Outcome `json:"outcome"`
		Reason   access.Reason  `json:"reason"`
		Text     string         `json:"text"`
		Rule     string         `json:"rule"`
		Realm    string         `json:"realm"`
		User     string         `json:"user_id"`
		Limit    int            `json:"limit"`
		Mode     access.Mode    `json:"mode"`
		More     []moreLimit    `json:"more_limits,omitempty"`
		Location string         `json:"location,omitempty"`
		Steps    []access.Step  `json:"steps"`
	}{v.Outcome, v.Reason, v.Text, rule, v.Realm, v.User, v.Limit, v.Mode, moreLimits(v.More), v.Location, v.Steps}
}

// moreLimit is a limit besides that of the account.
type moreLimit struct {
	By    string      `json:"by"`
	Scope string      `json:"scope"`
	Limit int         `json:"limit"`
	Mode  access.Mode `json:"mode"`
}

func moreLimits(list []decide.Limit) []moreLimit {
	var out []moreLimit
	for _, l := range list {
		one := moreLimit{By: l.By, Scope: "all", Limit: l.Sessions, Mode: l.Mode}
		if l.OwnRule {
			one.Scope = "rule"
		}
		out = append(out, one)
	}
	return out
}

func printer(app App) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(app.Out, format+"\n", args...) }
}

func steps(p func(string, ...any), list []access.Step) {
	if len(list) == 0 {
		p("  its steps are no longer kept")
		return
	}
	for _, s := range list {
		p("  %9.3f ms  %-16s %-12s %s", float64(s.Micros)/1000, s.Name, s.Result, s.Text)
	}
}
