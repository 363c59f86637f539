package policy

import (
	"time"

	"usher.internal/libs/match"
)

// ClientKind says what a client is.
type ClientKind string

// The kinds of clients.
const (
	Partner    ClientKind = "partner"
	Probe      ClientKind = "probe"
	Transcoder ClientKind = "transcoder"
)

// Realms of clients; no check may name users in them. Statistics leave probes out.
const (
	RealmClients = "clients"
	RealmProbes  = "probes"
)

// Client is a machine that is no subscriber: counted and audited without any check.
type Client struct {
	Name string
	Kind ClientKind
	// Lists of what it is known by: of tokens, addresses (IPs and Network together) and user
	// agents, as far as there are any, one must fit.
	Lists
	// Streams that it may ask for, by their own names; empty means all.
	Streams []*match.Glob
	// Sessions are its own cap, 0 for none; the session above it is refused.
	Sessions int
	// Until is when its time is over; the zero Time is never.
	Until time.Time
}

// Realm is where the client counts as a user.
func (c *Client) Realm() string {
	if c.Kind == Probe {
		return RealmProbes
	}
	return RealmClients
}

func (c *compiler) clients(files map[string]*fileClient) {
	for _, name := range c.doc.Keys("clients") {
		if f := files[name]; f != nil {
			at := path{"clients", name}
			c.name(at, name)
			c.snapshot.Clients = append(c.snapshot.Clients, c.client(at, name, f))
		}
	}
}

func (c *compiler) client(at path, name string, f *fileClient) *Client {
	own := &Client{
		Name: name, Kind: choice(c, at.sub("kind"), f.Kind, Partner, Partner, Probe, Transcoder),
		Lists: c.lists(at, fileLists{Token: f.Token, IP: f.IP, Network: f.Network, UA: f.UA}),
		Until: c.until(at.sub("until"), f.Until),
	}
	switch {
	case len(f.Token)+len(f.IP)+len(f.Network)+len(f.UA) == 0:
		c.errorf(at, "", "is known by nothing: give it a token, its addresses (ip, network), or both")
	case len(f.Token)+len(f.IP)+len(f.Network) == 0:
		c.warnf(at.sub("ua"), "anybody can send this user agent and play as %s; add a token or its addresses (ip)", name)
	}
	for i, text := range f.Streams {
		glob, err := match.ParseGlob(text)
		if err != nil {
			c.errorf(at.sub("streams", i), "", "%s", err)
			continue
		}
		own.Streams = append(own.Streams, glob)
	}
	if f.Streams != nil && len(f.Streams) == 0 {
		c.errorf(at.sub("streams"), "", "is empty: leave it out for all streams")
	}
	if f.Sessions != nil {
		if own.Sessions = *f.Sessions; own.Sessions < 1 || own.Sessions > maxSessions {
			c.errorf(at.sub("sessions"), "", "is %d; want 1 to %d, or leave it out for no cap", own.Sessions, maxSessions)
		}
	}
	return own
}

// until reads a day, which counts to its end (UTC), or a time.
func (c *compiler) until(at path, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t.Add(day)
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		c.errorf(at, "", "%q is no time; want a day such as 2027-01-31, which counts to its end, or 2027-01-31T20:15:00Z", text)
	}
	return t
}
