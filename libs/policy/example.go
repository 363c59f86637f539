package policy

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// ExampleIP is the viewer's address of examples that give none (RFC 5737).
var ExampleIP = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// Example is a question beside a rule with the outcome that its author
// expects. `usher policy check` asks it of the whole policy.
type Example struct {
	// URL that the viewer asks for, absolute or from its path on; "" where
	// Stream is given. Exactly one of the two is.
	URL, Stream string
	// Node that asks: one of the policy, by default the file's first.
	Node      string
	IP        netip.Addr // ExampleIP if the file gives none
	UserAgent string
	Referer   string
	// Country and ASN of IP: examples do not look into a database.
	Country string
	ASN     uint32
	Token   string // beside what URL holds
	// At is the clock of the question, the zero Time for now.
	At time.Time
	// Expect is "allow", "deny" (a redirect is one), or a reason.
	Expect string
	// Place is where the example stands: a Problem without a message.
	Place Problem
}

func (c *compiler) examples(at path, files []*fileExample) []Example {
	var list []Example
	for i, f := range files {
		if f != nil {
			list = append(list, c.example(at.sub(i), f))
		}
	}
	return list
}

func (c *compiler) example(at path, f *fileExample) Example {
	e := Example{
		URL: f.URL, Stream: f.Stream, Node: f.Node, IP: ExampleIP,
		UserAgent: f.UserAgent, Referer: f.Referer, Country: strings.ToUpper(f.Country), ASN: f.ASN, Token: f.Token, Expect: f.Expect,
		Place: c.doc.Problem("", at...),
	}
	if (f.URL == "") == (f.Stream == "") {
		c.errorf(at.sub("url"), "", "want either url or stream")
	}
	if f.URL != "" {
		if u, err := url.ParseRequestURI(f.URL); err != nil || u.Path == "" || u.Path[0] != '/' {
			c.errorf(at.sub("url"), "", "want an address such as https://tv.example.com/hls/news/index.m3u8?token=x, or its path and query")
		}
	}
	names := c.doc.Keys("nodes")
	switch {
	case f.Node == "" && len(names) > 0:
		e.Node = names[0]
	case !slices.Contains(names, f.Node):
		c.errorf(at.sub("node"), config.Nearest(f.Node, names), "no node is called %q", f.Node)
	}
	if f.IP != "" {
		ip, err := netip.ParseAddr(f.IP)
		if err != nil || ip.Zone() != "" {
			c.errorf(at.sub("ip"), "", "%q is no address", f.IP)
		}
		e.IP = ip.Unmap()
	}
	if f.Country != "" && !countryCode.MatchString(f.Country) {
		c.errorf(at.sub("country"), "", "%q is no country; want two letters as in ISO 3166, such as DE", f.Country)
	}
	if f.At != "" {
		t, err := time.Parse(time.RFC3339, f.At)
		if err != nil {
			c.errorf(at.sub("at"), "", "%q is no time; want one such as 2026-01-31T20:15:00Z", f.At)
		}
		e.At = t
	}
	known := expectations()
	if f.Expect == "" {
		c.errorf(at.sub("expect"), "", "is missing; want allow, deny or a reason such as no_token")
	} else {
		choice(c, at.sub("expect"), f.Expect, "", known...)
	}
	return e
}

func expectations() []string {
	known := []string{string(access.Allow), string(access.Deny)}
	for _, r := range access.Reasons() {
		known = append(known, string(r))
	}
	return known
}
