package policy

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"usher.internal/libs/config"
	"usher.internal/libs/match"
	"usher.internal/schemas/nats"
)

func (c *compiler) nodes(files map[string]*fileNode) {
	c.snapshot.Nodes = make(map[string]*Node, len(files))
	for _, name := range c.doc.Keys("nodes") {
		if f := files[name]; f != nil {
			at := path{"nodes", name}
			c.name(at, name)
			if n := c.node(at, name, f); n != nil {
				c.snapshot.Nodes[name] = n
			}
		}
	}
}

// node compiles one node; nil if its caller is not known, since all else hangs on it.
func (c *compiler) node(at path, name string, f *fileNode) *Node {
	kind, ok := findCaller(f.Caller)
	if !ok {
		c.unknownCaller(at.sub("caller"), f.Caller)
		return nil
	}
	d := c.snapshot.Defaults
	n := &Node{
		Name: name, Caller: kind.name, Edge: f.Edge, Rechecks: kind.rechecks,
		From:        prefixes(f.From),
		Token:       f.Token,
		Device:      f.Device,
		SessionKeys: f.SessionKeys,
		Lease:       c.duration(at.sub("lease"), f.Lease, d.Lease, shortest, longLease),
		Idle:        c.duration(at.sub("idle"), f.Idle, d.Idle, shortest, longLease),
		Hold:        c.duration(at.sub("hold"), f.Hold, kind.hold, 0, longHold),
		Budget:      c.duration(at.sub("budget"), f.Budget, kind.budget, shortest, longBudget),
	}
	n.Shadow = c.enforce(at.sub("enforce"), f.Enforce)
	if len(n.From) == 0 {
		c.errorf(at.sub("from"), "", "is empty: nobody could ask; list the addresses of the server itself, such as [10.1.0.5]")
	}
	if f.Edge != "" {
		if err := nats.CheckToken("edge", f.Edge); err != nil {
			c.errorf(at.sub("edge"), "", "%s", err)
		}
	}
	if f.URL != "" {
		u, err := match.ParseURL(f.URL)
		if err != nil {
			c.errorf(at.sub("url"), "", "%s", err)
		}
		n.URL = u
	}
	c.places(at, n, kind)
	c.sessionKeys(at.sub("session_keys"), n)
	c.clientIP(at.sub("client_ip"), n, f.ClientIP)
	c.dialect(at, n, f, kind)
	return n
}

func (c *compiler) unknownCaller(at path, name string) {
	if name == "" {
		c.errorf(at, "", "is missing; want %s", oneOf(callerNames()))
		return
	}
	c.errorf(at, config.Nearest(name, callerNames()), "%q is not known to this version; known are %s",
		name, strings.Join(callerNames(), ", "))
}

// dialect checks the keys that only some callers have.
func (c *compiler) dialect(at path, n *Node, f *fileNode, kind caller) {
	if kind.forward {
		n.Segments = choice(c, at.sub("segments"), f.Segments, segmentsDevice, segmentsDevice, segmentsToken)
		if f.RedirectStatus != nil {
			c.errorf(at.sub("redirect_status"), "", "is for astra and flussonic; %s passes a 302 on as it is", kind.name)
		}
	} else {
		if f.Segments != "" {
			c.errorf(at.sub("segments"), "", "is for nginx, caddy and traefik; %s does not ask for segments", kind.name)
		}
		n.RedirectStatus = 403
		if f.RedirectStatus != nil {
			n.RedirectStatus = *f.RedirectStatus
		}
		if n.RedirectStatus != 403 && n.RedirectStatus != 302 {
			c.errorf(at.sub("redirect_status"), "", "is %d; want 403 or 302", n.RedirectStatus)
		}
	}
	n.Control = c.control(at.sub("control"), f.Control, kind)
	if f.Headers == nil {
		return
	}
	if !kind.rechecks {
		c.errorf(at.sub("headers"), "", "is for flussonic; %s is told nothing that could be left out", kind.name)
	}
	n.NoHeaders = choice(c, at.sub("headers"), *f.Headers, "on", "on", "off") == "off"
}

// placeForm is where a value may stand in a viewer's request.
var placeForm = regexp.MustCompile(`^(query|header|cookie|path):(.+)$`)

// places checks where token and device may stand.
func (c *compiler) places(at path, n *Node, kind caller) {
	if n.Token == nil {
		n.Token = []string{"query:token"}
	}
	if len(n.Token) == 0 {
		c.errorf(at.sub("token"), "", "is empty: no token would be found; leave it out for [query:token]")
	}
	for i, p := range n.Token {
		c.place(at.sub("token", i), p, kind, kind.forward && n.URL == nil)
	}
	if n.Device != "" {
		c.place(at.sub("device"), n.Device, kind, false)
	}
}

// place checks one place; named says that every path element is read as a part of the stream's name.
func (c *compiler) place(at path, place string, kind caller, named bool) {
	m := placeForm.FindStringSubmatch(place)
	if m == nil {
		c.errorf(at, "", "%q is no place; want query:NAME, header:NAME, cookie:NAME or path:N", place)
		return
	}
	where, what := m[1], m[2]
	switch {
	case !kind.forward && (where == "header" || where == "cookie"):
		c.errorf(at, "", "%q cannot be read: %s passes on the viewer's query and path only", place, kind.name)
	case where == "path":
		if i, err := strconv.Atoi(what); err != nil || i < 1 || i > 32 {
			c.errorf(at, "", "%q: want the number of a path element, path:1 to path:32", place)
		} else if named {
			c.errorf(at, "", "%q: the default reading takes that element for a part of the stream's name, so that each token would be a stream, and be stored as one; say with url where the stream stands", place)
		}
	case where == "query" && strings.ContainsAny(what, "=&?# ") || where != "query" && !httpguts.ValidHeaderFieldName(what):
		c.errorf(at, "", "%q: that cannot be the name of a %s", place, where)
	}
}

func (c *compiler) sessionKeys(at path, n *Node) {
	known := []string{"token", "stream", "device", "ip", "user_agent"}
	if n.SessionKeys == nil {
		n.SessionKeys = known[:3:3]
		return
	}
	if len(n.SessionKeys) == 0 {
		c.errorf(at, "", "is empty: all viewers would be one session; leave it out for [token, stream, device]")
	}
	for i, key := range n.SessionKeys {
		choice(c, at.sub(i), key, "", known...)
		if slices.Index(n.SessionKeys, key) < i {
			c.errorf(at.sub(i), "", "%s stands twice", key)
		}
	}
}

func (c *compiler) clientIP(at path, n *Node, f *fileClientIP) {
	if f == nil {
		return
	}
	// Without a header of its own the node takes its caller's usual one, from whom it trusts.
	named := c.doc.Has(at.sub("header")...) || !c.doc.Has(at.sub("trust")...)
	if named && !httpguts.ValidHeaderFieldName(f.Header) {
		c.errorf(at.sub("header"), "", "%q is no header; want one such as X-Real-IP", f.Header)
	}
	n.ClientIPHeader = f.Header
	n.ClientIPTrust = prefixes(f.Trust)
	if len(f.Trust) > 0 {
		return
	}
	if c.doc.Has(at.sub("trust")...) {
		c.errorf(at.sub("trust"), "", "is empty: the header would never be believed; leave it out to believe the node's from")
	}
	n.ClientIPTrust = n.From
}

func prefixes(from []config.Prefix) []netip.Prefix {
	if len(from) == 0 {
		return nil
	}
	list := make([]netip.Prefix, len(from))
	for i, p := range from {
		list[i] = p.Prefix
	}
	return list
}
