package cluster

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/policy"
	"usher.internal/libs/token/securetoken"
	"usher.internal/services/usher/policyfile"
	"usher.internal/services/usher/viewer"
)

// sampleHours is how long a sample's token is good.
const sampleHours = 12

// Sample is a question that a person can try. It was judged by the policy before it is shown.
type Sample struct {
	// Node that asks, and its URL on this edge.
	Node, URL string
	// Caller is the node's kind.
	Caller string
	// Local says that the node may ask from this machine.
	Local bool
	// Allowed and Denied are shell lines that ask as the node would, "" where none is known.
	Allowed, Denied string
}

// samples has one entry for each node, those first that can be tried from this machine.
func samples(ctx context.Context, p *policyfile.Policy, addr net.Addr) []Sample {
	base := "http://" + reachable(addr)
	var all []Sample
	for _, name := range slices.Sorted(maps.Keys(p.Snapshot.Nodes)) {
		n := p.Snapshot.Nodes[name]
		s := Sample{Node: name, Caller: n.Caller, URL: base + "/v1/" + n.Caller + "/" + name}
		s.Local = slices.ContainsFunc(n.From, func(from netip.Prefix) bool { return from.Contains(loopback) })
		if s.Local && p.Engine != nil {
			s.Allowed, s.Denied = try(ctx, p, n, base)
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b Sample) int { return rank(a) - rank(b) })
	return all
}

var loopback = netip.MustParseAddr("127.0.0.1")

// rank puts first what shows most.
func rank(s Sample) int {
	switch {
	case s.Allowed != "" && s.Denied != "" && s.Caller != "astra":
		return 0
	case s.Allowed != "" && s.Denied != "":
		return 1
	case s.Local:
		return 2
	}
	return 3
}

// reachable is the address as a client on this machine writes it.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
}

// try looks for one viewer that the policy lets in at the node and one that it does not.
func try(ctx context.Context, p *policyfile.Policy, n *policy.Node, base string) (allowed, denied string) {
	for _, rule := range p.Snapshot.Rules {
		if rule.Upstream() {
			continue // nobody's subscriber system is asked for the sake of a sample
		}
		stream := sampleStream(rule)
		for _, v := range candidates(rule, n, stream) {
			r, err := viewer.Question(n, v, base)
			if err != nil {
				continue
			}
			v, err := policyfile.Judge(ctx, p, n, r)
			switch {
			case err != nil || v.Rule != rule || v.Unavailable:
			case v.Outcome == access.Allow && v.Reason == access.Granted && allowed == "":
				allowed = viewer.Curl(r)
			case v.Outcome == access.Deny && denied == "":
				denied = viewer.Curl(r)
			}
			if allowed != "" && denied != "" {
				return allowed, denied
			}
		}
	}
	return allowed, denied
}

// candidates are two viewers for each check that signs tokens, one with a good and one with
// a forged token, and one without any. A viewer without comes last: he would follow the
// first one's session if both were tried from one place.
func candidates(rule *policy.Rule, n *policy.Node, stream string) []viewer.Viewer {
	path := viewer.Path(n, stream)
	plain := viewer.Viewer{URL: path, IP: loopback, UserAgent: "VLC/3.0"}
	if n.Caller == "astra" {
		plain.Channel = stream
	}
	var all []viewer.Viewer
	for _, c := range rule.Checks {
		o, ok := c.Options.(*securetoken.Options)
		if !ok {
			continue
		}
		t, err := securetoken.Sign(o, securetoken.Ticket{
			Stream: stream, Path: path, IP: loopback, User: "demo",
			Start: time.Now().Add(-time.Minute), End: time.Now().Add(sampleHours * time.Hour),
		})
		if err != nil {
			continue
		}
		all = append(all, withToken(plain, n, t), withToken(plain, n, forge(t)))
	}
	return append(all, plain)
}

// forge gives the token another user than the one it was signed for.
func forge(t string) string { return strings.TrimSuffix(t, "demo") + "mallory" }

// withToken puts the token in the node's first place that a sample can show.
func withToken(v viewer.Viewer, n *policy.Node, token string) viewer.Viewer {
	kind, name, _ := strings.Cut(n.Token[0], ":")
	switch kind {
	case "query":
		v.URL += "?" + name + "=" + token
	case "header":
		v.Header = http.Header{http.CanonicalHeaderKey(name): {token}}
	case "cookie":
		v.Header = http.Header{"Cookie": {name + "=" + token}}
	}
	return v
}

// sampleStream is a name that the rule's pattern matches.
func sampleStream(r *policy.Rule) string {
	return strings.NewReplacer("**", "news", "*", "news").Replace(r.Match.String())
}
