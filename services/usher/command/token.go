package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/decide"
	"usher.internal/libs/match"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/usher/viewer"
)

// tokens groups what is done with tokens.
type tokens struct {
	Sign    tokenSign    `cmd:"" help:"Make a token that a check of the policy accepts."`
	Inspect tokenInspect `cmd:"" help:"Say what is in a token or address, and which checks accept it."`
}

// tokenSign makes a token.
type tokenSign struct {
	source
	Scheme   string        `arg:"" help:"securetoken, secure_link or jwt."`
	Check    string        `help:"The check whose options and secret are used; not needed where the policy has one of this type."`
	Policy   string        `help:"Policy file, in place of the policy in force." placeholder:"FILE"`
	Node     string        `help:"The node that will be asked; the policy's first if left out."`
	Stream   string        `help:"The stream's name; without it it is read out of --url."`
	URL      string        `name:"url" help:"The viewer's address, or its path; without it one is made up for the node."`
	User     string        `help:"The user that the token names."`
	Device   string        `help:"The device that the token names."`
	Sessions int           `help:"The token's own limit."`
	IP       string        `name:"ip" help:"The viewer's address."`
	For      time.Duration `help:"How long it is good." default:"3h"`
	Since    time.Duration `help:"How long ago it begins: other machines have other clocks." default:"1m"`
	Key      string        `help:"File of the private key, where the check has only the public one." placeholder:"FILE"`
	JSON     bool          `help:"Print JSON." name:"json"`
}

// Run signs; it writes nothing anywhere.
func (c tokenSign) Run(ctx context.Context, app App) error {
	p, err := c.policy(ctx, c.Policy)
	if err != nil && !errors.Is(err, policyfile.ErrSecrets) {
		return err // one secret is enough here, and Sign says if it is the one that is missing
	}
	defer p.Close()
	check, err := pick(p.Snapshot, c.Scheme, c.Check)
	if err != nil {
		return err
	}
	n, err := nodeOf(p.Snapshot, c.Node)
	if err != nil {
		return err
	}
	u, stream, err := addressOf(n, c.URL, c.Stream)
	if err != nil {
		return err
	}
	t := token.Ticket{
		Stream: stream, Path: u.EscapedPath(), Query: u.RawQuery, Host: u.Host, User: c.User, Device: c.Device, Sessions: c.Sessions,
	}
	if t.IP, err = parseIP(c.IP); err != nil {
		return err
	}
	now := time.Now().Truncate(time.Second)
	t.Start, t.End = now.Add(-c.Since), now.Add(c.For)
	if c.Key != "" {
		if t.Key, err = os.ReadFile(c.Key); err != nil {
			return fmt.Errorf("reading the private key: %w", err)
		}
	}
	signed, err := decide.Sign(check, t)
	if err != nil {
		return fmt.Errorf("check %s: %w", check.Name, err)
	}
	return c.print(app, check, n, u, signed, t.End)
}

func (c tokenSign) print(app App, check *policy.Check, n *policy.Node, u *url.URL, s token.Signed, end time.Time) error {
	path, query, header := s.Path, s.Query, ""
	if path == "" {
		path, query, header = viewer.Bring(n, u.EscapedPath(), u.RawQuery, s.Token)
	}
	address := path
	if u.Host != "" {
		address = u.Scheme + "://" + u.Host + path
	}
	if query != "" {
		address += "?" + query
	}
	if c.JSON {
		return printJSON(app, struct {
			Check  string    `json:"check"`
			Token  string    `json:"token"`
			URL    string    `json:"url"`
			Header string    `json:"header"`
			Until  time.Time `json:"until"`
		}{check.Name, s.Token, address, header, end.UTC()})
	}
	out := printer(app)
	out("%s", s.Token)
	out("%s", address)
	if header != "" {
		out("%s", header)
	}
	return nil
}

// pick finds the check whose tokens are made.
func pick(s *policy.Snapshot, scheme, name string) (*policy.Check, error) {
	if !slices.Contains(decide.Schemes(), scheme) {
		return nil, fmt.Errorf("%q is no scheme; there are %s", scheme, strings.Join(decide.Schemes(), ", "))
	}
	if name != "" {
		c := s.Checks[name]
		switch {
		case c == nil:
			return nil, fmt.Errorf("the policy has no check %q; usher policy show prints it", name)
		case c.Type != scheme:
			return nil, fmt.Errorf("check %s is of type %s, not %s", name, c.Type, scheme)
		}
		return c, nil
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(s.Checks)) {
		if s.Checks[name].Type == scheme {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("the policy has no check of type %s", scheme)
	case 1:
		return s.Checks[found[0]], nil
	}
	return nil, fmt.Errorf("say which check: --check %s", strings.Join(found, " or --check "))
}

// nodeOf is the node of that name, the first of the policy if none is given.
func nodeOf(s *policy.Snapshot, name string) (*policy.Node, error) {
	if name == "" {
		names := slices.Sorted(maps.Keys(s.Nodes))
		if len(names) == 0 {
			return nil, errors.New("the policy has no nodes: nobody could be asked with this token")
		}
		name = names[0]
	}
	if n := s.Nodes[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("the policy has no node %q; usher policy show prints it", name)
}

// addressOf is the viewer's address and the stream in it: each is made of the other where only
// one was given.
func addressOf(n *policy.Node, address, stream string) (*url.URL, string, error) {
	if address == "" {
		if stream == "" {
			return nil, "", errors.New("give --stream NAME or --url URL")
		}
		address = viewer.Path(n, stream)
	}
	u, err := parseAddress(address)
	if err != nil {
		return nil, "", err
	}
	if stream == "" {
		var ok bool
		if stream, ok = streamIn(n, u); !ok {
			return nil, "", fmt.Errorf("node %s reads no stream's name out of this address: give it with --stream", n.Name)
		}
	}
	return u, stream, nil
}

func streamIn(n *policy.Node, u *url.URL) (string, bool) {
	if n.URL != nil {
		return n.URL.Stream(u.EscapedPath())
	}
	return match.DefaultStream(u.EscapedPath())
}

// parseAddress does not repeat the address in its error: a token may stand in it.
func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(u.EscapedPath(), "/") {
		return nil, errors.New("that is no address of a stream: give one such as https://tv.example.com/hls/news/index.m3u8, or its path")
	}
	return u, nil
}

// place says who asks from where.
func place(stream string, ip netip.Addr) string {
	text := "no stream (give --stream)"
	if stream != "" {
		text = "stream " + stream
	}
	if ip.IsValid() {
		return text + " from " + ip.String()
	}
	return text + " from no address (give --ip)"
}
