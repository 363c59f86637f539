package policy

import (
	"maps"
	"net/netip"
	"slices"

	"usher.internal/libs/access"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// Projections are what edges read of the policy, by key of the projection
// bucket: one for each edge that a node names, which holds its own nodes and
// those that belong to no edge, and nats.AnyProjectionKey with the latter alone. They hold no
// secrets (the password of a control API is a reference), no tokens and no checks. Nodes are sorted by name, streams are in the
// file's order.
func (s *Snapshot) Projections() map[string]*usherv1.Projection {
	// Machines and own rules that may let in on any stream who brings no token.
	bare := slices.ContainsFunc(s.Clients, func(c *Client) bool { return len(c.Tokens) == 0 }) ||
		slices.ContainsFunc(s.Own, (*Own).tokenless)
	playlists := s.playlists()
	denials := &denialViews{known: map[string]int32{}}
	streams := make([]*usherv1.StreamView, len(s.Rules))
	for i, r := range s.Rules {
		streams[i] = r.view()
		streams[i].OnDeny = denials.number(r.OnDeny)
		streams[i].Tokenless = streams[i].Tokenless || bare
	}
	edges := map[string]string{"": nats.AnyProjectionKey}
	for _, n := range s.Nodes {
		if n.Edge != "" {
			edges[n.Edge] = nats.EdgeProjectionKey(n.Edge)
		}
	}
	projections := make(map[string]*usherv1.Projection, len(edges))
	for edge, key := range edges {
		p := &usherv1.Projection{Revision: s.Revision, Streams: streams, Aliases: s.Aliases.view(), OnDeny: denials.list, Playlists: playlists}
		for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
			if n := s.Nodes[name]; n.Edge == "" || n.Edge == edge {
				p.Nodes = append(p.Nodes, n.view())
			}
		}
		projections[key] = p
	}
	return projections
}

func (n *Node) view() *usherv1.NodeView {
	v := &usherv1.NodeView{
		Name: n.Name, Caller: n.Caller, Edge: n.Edge,
		From:           texts(n.From),
		Token:          n.Token,
		Segments:       n.Segments,
		SessionKeys:    n.SessionKeys,
		Device:         n.Device,
		ClientIpHeader: n.ClientIPHeader,
		ClientIpTrust:  texts(n.ClientIPTrust),
		LeaseMs:        n.Lease.Milliseconds(),
		IdleMs:         n.Idle.Milliseconds(),
		HoldMs:         n.Hold.Milliseconds(),
		BudgetMs:       n.Budget.Milliseconds(),
		RedirectStatus: int32(n.RedirectStatus),
		NoHeaders:      n.NoHeaders,
		Rechecks:       n.Rechecks,
		Shadow:         n.Shadow > 0,
		Upstream:       n.Answer != nil && n.Answer.Upstream,
	}
	v.Control = n.Control.view()
	if n.URL != nil {
		v.Url = n.URL.String()
	}
	return v
}

func (c *Control) view() *usherv1.ControlView {
	if c == nil {
		return nil
	}
	return &usherv1.ControlView{
		Url: c.URL, User: c.User, Password: c.Password.Reference(),
		PollMs: c.Poll.Milliseconds(), TimeoutMs: c.Timeout.Milliseconds(), NoKick: !c.Kick,
	}
}

func (a *Aliases) view() *usherv1.AliasView {
	if a == nil {
		return nil
	}
	return &usherv1.AliasView{Names: a.Names.Names(), Strict: a.Strict, Asked: a.HTTP != nil}
}

func (r *Rule) view() *usherv1.StreamView {
	return &usherv1.StreamView{
		Match:         r.Match.String(),
		OnUnavailable: string(r.OnUnavailable),
		Uncounted:     string(r.Uncounted),
		GraceMs:       r.Grace.Milliseconds(),
		GraceKnownMs:  r.GraceKnown.Milliseconds(),
		Upstream:      r.Upstream(),
		Tokenless:     r.Tokenless(),
		Shadow:        r.Shadow > 0,
		Conditional:   r.When != nil,
		Digest:        r.digest,
	}
}

// denialViews are the on_deny of all rules, each once: thousands of rules have the same.
type denialViews struct {
	list  []*usherv1.DenyView
	known map[string]int32
}

// number is that of an entry, from 1; 0 for none.
func (d *denialViews) number(targets map[access.Reason]string) int32 {
	if len(targets) == 0 {
		return 0
	}
	v := &usherv1.DenyView{Addresses: make(map[string]string, len(targets))}
	key := ""
	for _, reason := range slices.Sorted(maps.Keys(targets)) {
		v.Addresses[string(reason)] = targets[reason]
		key += string(reason) + " " + targets[reason] + " "
	}
	if n, ok := d.known[key]; ok {
		return n
	}
	d.list = append(d.list, v)
	d.known[key] = int32(len(d.list))
	return d.known[key]
}

func texts(prefixes []netip.Prefix) []string {
	list := make([]string, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.String()
	}
	return list
}

// playlists are the checks whose users fetch playlists from edges, by name.
func (s *Snapshot) playlists() []*usherv1.PlaylistView {
	var all []*usherv1.PlaylistView
	for _, name := range slices.Sorted(maps.Keys(s.Checks)) {
		if c := s.Checks[name]; c.PublicPlaylists {
			all = append(all, &usherv1.PlaylistView{Check: name, Trust: texts(c.PlaylistTrust)})
		}
	}
	return all
}
