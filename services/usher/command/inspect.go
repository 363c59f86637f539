package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/usher/viewer"
)

// keysWithin is how long a key set may take to be fetched before an answer is given up.
const keysWithin = 5 * time.Second

// tokenInspect takes a token apart, and asks the policy's checks about it.
type tokenInspect struct {
	source
	Token  string `arg:"" help:"A token, or the viewer's address with it; - reads it from standard input, so that it stays out of the shell's history."`
	Check  string `help:"Ask only this check."`
	Policy string `help:"Policy file, in place of the policy in force." placeholder:"FILE"`
	Node   string `help:"The node that would ask: where the token stands, and how the stream is read."`
	Stream string `help:"The stream that the viewer asks for."`
	IP     string `name:"ip" help:"The viewer's address."`
	JSON   bool   `help:"Print JSON." name:"json"`
}

// opinion is what one check says of a token.
type opinion struct {
	Check   string        `json:"check"`
	Type    string        `json:"type"`
	Result  string        `json:"result"` // accepted, refused, not mine, unavailable
	Reason  access.Reason `json:"reason,omitempty"`
	Text    string        `json:"text,omitempty"`
	User    string        `json:"user_id,omitempty"`
	Device  string        `json:"device,omitempty"`
	Session int           `json:"sessions,omitempty"`
}

// Run takes the token apart. With a policy it fails if no check accepts the token.
func (c tokenInspect) Run(ctx context.Context, app App) error {
	text, err := c.read(app.In)
	if err != nil {
		return err
	}
	ip, err := parseIP(c.IP)
	if err != nil {
		return err
	}
	var p *policyfile.Policy
	if c.Policy != "" || c.Check != "" || c.Node != "" || c.Stream != "" || c.Postgres != "" {
		if p, err = c.policy(ctx, c.Policy); err != nil {
			return err
		}
		defer p.Close()
	}
	q, seen, err := c.look(p, text)
	if err != nil {
		return err
	}
	q.IP = ip
	var said []opinion
	if p != nil {
		if said, err = c.ask(ctx, p, q); err != nil {
			return err
		}
	}
	if err := c.print(app, seen, q, said); err != nil {
		return err
	}
	if p != nil && !slices.ContainsFunc(said, func(o opinion) bool { return o.Result == "accepted" }) {
		return errSilent
	}
	return nil
}

// read is the argument, or the first line of standard input.
func (c tokenInspect) read(in io.Reader) (string, error) {
	text := c.Token
	if text == "-" {
		if in == nil {
			in = strings.NewReader("")
		}
		raw, err := io.ReadAll(io.LimitReader(in, access.MaxQuery+access.MaxPath))
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		text, _, _ = strings.Cut(string(raw), "\n")
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "Bearer ")
	if text == "" {
		return "", errors.New("there is no token")
	}
	return text, nil
}

// look finds the token in what was given, and what it looks like.
func (c tokenInspect) look(p *policyfile.Policy, text string) (*token.Question, []decide.Inspected, error) {
	q := &token.Question{Token: text, Stream: c.Stream, Now: time.Now()}
	var checks []*policy.Check
	var n *policy.Node
	if p != nil {
		checks = slices.Collect(maps.Values(p.Snapshot.Checks))
		if c.Node != "" || len(p.Snapshot.Nodes) > 0 {
			var err error
			if n, err = nodeOf(p.Snapshot, c.Node); err != nil {
				return nil, nil, err
			}
		}
	}
	if !isAddress(text) {
		return q, decide.Inspect(checks, text, ""), nil
	}
	u, err := parseAddress(text)
	if err != nil {
		return nil, nil, err
	}
	q.Token, q.Path, q.Query, q.Host = "", u.EscapedPath(), u.RawQuery, u.Host
	if q.Stream == "" && n != nil {
		q.Stream, _ = streamIn(n, u)
	}
	return q, c.find(q, checks, n, u), nil
}

// find tries what could be the token in an address.
func (c tokenInspect) find(q *token.Question, checks []*policy.Check, n *policy.Node, u *url.URL) []decide.Inspected {
	candidates := viewer.Brought(n, u)
	if c.Node == "" {
		candidates = append(candidates, viewer.Brought(nil, u)...) // no node was named: wherever it stands
	}
	for _, candidate := range candidates {
		if seen := decide.Inspect(checks, candidate, u.String()); len(seen) > 0 {
			q.Token = candidate
			return seen
		}
	}
	if len(candidates) > 0 {
		q.Token = candidates[0]
	}
	return decide.Inspect(checks, "", u.String())
}

func isAddress(text string) bool {
	return strings.HasPrefix(text, "/") || strings.Contains(text, "://")
}

// ask puts the token to the policy's verifiers.
func (c tokenInspect) ask(ctx context.Context, p *policyfile.Policy, q *token.Question) ([]opinion, error) {
	said := []opinion{}
	for _, name := range slices.Sorted(maps.Keys(p.Snapshot.Checks)) {
		check := p.Snapshot.Checks[name]
		if check.Upstream || !slices.Contains(decide.Schemes(), check.Type) || c.Check != "" && c.Check != name || q.Token == "" && !check.InAddress {
			continue
		}
		id, err := patientVerify(ctx, p.Engine, name, q)
		o := opinion{Check: name, Type: check.Type, Result: "accepted", User: id.User, Device: id.Device, Session: id.Sessions}
		var d *token.Denial
		switch {
		case errors.Is(err, token.ErrNotMine):
			o.Result = "not mine"
		case errors.As(err, &d):
			o.Result, o.Reason, o.Text = "refused", d.Reason, d.Text
		case errors.Is(err, token.ErrUnavailable):
			o.Result, o.Text = "unavailable", err.Error()
		case err != nil:
			return nil, err
		}
		said = append(said, o)
	}
	if len(said) == 0 && c.Check != "" {
		return nil, fmt.Errorf("the policy has no verifier %q that this could be put to", c.Check)
	}
	return said, nil
}

// patientVerify gives a key set that is being fetched more time than a viewer has.
func patientVerify(ctx context.Context, e *decide.Engine, name string, q *token.Question) (token.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, keysWithin)
	defer cancel()
	for {
		id, err := e.Verify(ctx, name, q)
		if !errors.Is(err, token.ErrUnavailable) {
			return id, err
		}
		select {
		case <-ctx.Done():
			return id, err
		case <-time.After(keysWithin / 20):
		}
	}
}

func (c tokenInspect) print(app App, seen []decide.Inspected, q *token.Question, said []opinion) error {
	if c.JSON {
		return printJSON(app, report(seen, said))
	}
	out := printer(app)
	if len(seen) == 0 {
		out("this has the form of no scheme that is known here (%s)", strings.Join(decide.Schemes(), ", "))
	}
	for _, s := range seen {
		out("looks like %s", s.Type)
		for _, part := range s.Parts {
			if part.Time.IsZero() {
				out("  %-14s %s", part.Name, part.Value)
				continue
			}
			out("  %-14s %s  %s, %s", part.Name, part.Value, part.Time.Local().Format("2006-01-02 15:04:05"), when(part.Time))
		}
	}
	for _, o := range said {
		out("%s", o.sentence(q.Stream, q.IP))
	}
	return nil
}

// sentence is the opinion in words.
func (o opinion) sentence(stream string, ip netip.Addr) string {
	name := "check " + o.Check + " (" + o.Type + ")"
	switch o.Result {
	case "accepted":
		text := name + " accepts it for " + place(stream, ip)
		if o.User != "" {
			text += ": user " + o.User
		}
		if o.Device != "" {
			text += ", device " + o.Device
		}
		if o.Session > 0 {
			text += fmt.Sprintf(", at most %d sessions", o.Session)
		}
		return text
	case "refused":
		return name + " refuses it for " + place(stream, ip) + ": " + string(o.Reason) + ", " + o.Text
	case "not mine":
		return name + " does not know this form or issuer, and leaves it to others"
	}
	return name + " cannot tell now: " + o.Text
}

// report is the answer as JSON.
func report(seen []decide.Inspected, said []opinion) any {
	type part struct {
		Name  string     `json:"name"`
		Value string     `json:"value"`
		Time  *time.Time `json:"time,omitempty"`
	}
	type scheme struct {
		Type  string `json:"type"`
		Parts []part `json:"parts"`
	}
	schemes := []scheme{}
	for _, s := range seen {
		one := scheme{Type: s.Type, Parts: []part{}}
		for _, p := range s.Parts {
			row := part{Name: p.Name, Value: p.Value}
			if !p.Time.IsZero() {
				at := p.Time.UTC()
				row.Time = &at
			}
			one.Parts = append(one.Parts, row)
		}
		schemes = append(schemes, one)
	}
	return struct {
		Schemes []scheme  `json:"schemes"`
		Checks  []opinion `json:"checks"`
	}{schemes, said}
}

// when is how far a time is from now, for a person.
func when(t time.Time) string {
	if d := time.Until(t); d > 2*time.Second {
		if d > 2*time.Minute {
			d = d.Round(time.Minute)
		}
		return "in " + strings.TrimSuffix(ago(time.Now().Add(-d)), " ago")
	}
	return ago(t)
}
