package policy

import (
	"regexp"
	"slices"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
)

// Whose number of sessions counts.
const (
	FromMiddleware = "middleware"
	FromPolicy     = "policy"
)

// For says which questions a check is asked: all that is given must hold. It is immutable; the
// nil For holds for every question.
type For struct {
	Hosts, Nodes []*match.Glob
	Network      Networks
	Token        *regexp.Regexp // the whole token
}

// Other says what of the question is another than the check is for: host, node, network or
// form of token; "" if the check is for it. within says whether the viewer is in Network.
func (f *For) Other(r *access.Request, within bool) string {
	if f == nil {
		return ""
	}
	switch {
	case f.Hosts != nil && !anyMatch(f.Hosts, bareHost(r.Host)):
		return "host"
	case f.Nodes != nil && !anyMatch(f.Nodes, r.Node):
		return "node"
	case !f.Network.Empty() && !within:
		return "network"
	case f.Token != nil && !f.Token.MatchString(r.Token):
		return "form of token"
	}
	return ""
}

// MayAsk says whether the check may ever be for a question of this node.
func (f *For) MayAsk(node string) bool {
	return f == nil || f.Nodes == nil || anyMatch(f.Nodes, node)
}

func anyMatch(globs []*match.Glob, name string) bool {
	return slices.ContainsFunc(globs, func(g *match.Glob) bool { return g.Match(name) })
}

// bareHost is a Host header without port, in lower case.
func bareHost(host string) string {
	host = strings.ToLower(host)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

func (c *compiler) forWhom(at path, f *fileFor) *For {
	if f == nil {
		return nil
	}
	out := &For{Network: c.within(at.sub("network"), f.Network)}
	for i, host := range f.Host {
		if strings.ContainsAny(host, "/: ") {
			c.errorf(at.sub("host", i), hostOf(strings.ToLower(host)), `%q is no host; want one such as tv.example.com or "*.example.com"`, host)
		}
		out.Hosts = c.glob(out.Hosts, at.sub("host", i), strings.ToLower(host))
	}
	for i, node := range f.Node {
		out.Nodes = c.glob(out.Nodes, at.sub("node", i), node)
	}
	for key, empty := range map[string]bool{
		"host": f.Host != nil && len(f.Host) == 0, "node": f.Node != nil && len(f.Node) == 0, "network": f.Network != nil && len(f.Network) == 0,
	} {
		if empty {
			c.errorf(at.sub(key), "", "is empty: the check would never be asked; leave it out for any")
		}
	}
	if f.Token != nil {
		// By itself first: one such as `a)|(b` would close the group that we put around it.
		_, err := regexp.Compile(*f.Token)
		var whole *regexp.Regexp
		if err == nil {
			whole, err = regexp.Compile(`^(?:` + *f.Token + `)$`)
		}
		if err != nil {
			// The error repeats the pattern with what we put around it.
			c.errorf(at.sub("token"), "", "%q is no regular expression (RE2), such as [0-9a-f]{32}", *f.Token)
		}
		out.Token = whole
	}
	if out.Hosts == nil && out.Nodes == nil && len(f.Network) == 0 && out.Token == nil {
		c.errorf(at, "", "names nothing; want host, node, network or token, or leave it out")
	}
	return out
}

func (c *compiler) glob(list []*match.Glob, at path, text string) []*match.Glob {
	g, err := match.ParseGlob(text)
	if err != nil {
		c.errorf(at, "", "%s", err)
		return list
	}
	return append(list, g)
}
