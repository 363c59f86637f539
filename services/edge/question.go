package edge

import (
	"fmt"
	"net/netip"
	"time"
	"unique"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// question is one question of a caller on its way through the edge.
type question struct {
	access.Request
	node *caller.Node
	// own is the stream's own name, where the edge knows it: Stream is as the viewer asked.
	own  string
	rule *rule
	view *view
	// prefix is the viewer's address by prefix. With the user agent it tells devices
	// apart that bring no id (Device is "" then), and is what segments without a token
	// are known by.
	prefix netip.Addr
	// followed says that it belongs to a session that it did not name by its own key.
	followed bool
	// asked is when the question came, deadline when its answer must be ready.
	asked, deadline time.Time
	// parent is the caller's traceparent, "" if none; method is the question's own.
	parent, method string
	// trace is the id of the question's trace once it has one.
	trace [16]byte
	// memory says that the answer came from memory.
	memory bool
	// doubt says that a worker may decide it, or have decided it, whose answer did not come.
	doubt bool
}

// prefixOf is what stays of a viewer's address: IPv6 viewers change the lower half of
// theirs at will.
func prefixOf(ip netip.Addr) netip.Addr {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil { // not an address
		return netip.Addr{}
	}
	return p.Addr()
}

// device is the device as workers and operators see it: the id that the viewer brought,
// else where he is and what he says he is.
func (q *question) device() string {
	return deviceOf(q.Device, q.prefix, q.UserAgent)
}

func deviceOf(id string, prefix netip.Addr, agent string) string {
	if id != "" {
		return id
	}
	return access.Clean(prefix.String()+" "+agent, access.MaxName)
}

// key is the session key: the caller's own id with the node that gave it, else a
// hash over what the node's session_keys name. The latter has no node in it: three
// edges before the same content see one session.
func key(k *access.Keyer, q *question) access.Key {
	if q.CallerSession != "" {
		return k.Key("caller session", q.node.Name, q.CallerSession)
	}
	var buf [1 + 4*8]string
	parts := append(buf[:0], "session")
	if !q.plays() {
		parts[0] = "publisher" // who watches with the same token is somebody else
	}
	at := q.prefix.As16()
	for _, name := range q.node.Keys {
		switch name {
		case caller.KeyToken:
			parts = append(parts, name, q.Token)
		case caller.KeyStream:
			parts = append(parts, name, q.Stream)
		case caller.KeyDevice:
			if q.Device != "" {
				parts = append(parts, "device id", q.Device)
				continue
			}
			parts = append(parts, name, string(at[:]), q.UserAgent)
		case caller.KeyIP:
			parts = append(parts, name, q.IP.String())
		case caller.KeyUserAgent:
			parts = append(parts, name, q.UserAgent)
		}
	}
	return k.Key(parts...)
}

// trail is where the segments of a session that carry no token are looked for.
func trail(k *access.Keyer, q *question) access.Key {
	at := q.prefix.As16()
	return k.Key("trail", q.Stream, string(at[:]), q.UserAgent)
}

// trailOf is what a session of the question is found by besides its key, the zero Key if by nothing.
func trailOf(k *access.Keyer, q *question) access.Key {
	switch {
	case q.names():
		return k.Key("device on stream", q.Stream, q.Device)
	case q.CallerSession == "" && !q.node.ByToken:
		return trail(k, q)
	}
	return access.Key{}
}

// names says that the viewer has a device id of his own beside the number that his server gave him
// once and for all: with another number he is the same viewer, who connected again.
func (q *question) names() bool {
	return q.CallerSession != "" && q.Device != "" && !q.node.Rechecks
}

// follows says whether the question may belong to a session that it does not name
// itself: it lacks the token, or the device id that others of its node bring.
func (q *question) follows() bool {
	if q.CallerSession != "" || q.node.ByToken || !q.plays() {
		return false
	}
	return q.Token == "" || q.node.Device != nil && q.Device == ""
}

// bare says that nothing in the question could open a session under most rules: no
// token, and no caller that vouches for the viewer by an id of its own.
func (q *question) bare() bool { return q.Token == "" && q.CallerSession == "" }

// same is the key of equal questions: one of them is asked, its denial stands for
// all. The viewer's path is left out, since playlist and segments come together. Who brings no
// token may be known by his query or by his path: a bad link must not speak for a good one.
func same(k *access.Keyer, q *question) access.Key {
	at := q.prefix.As16()
	query, path := "", ""
	if q.bare() {
		query, path = q.Query, q.Path
	}
	asks := ""
	if q.Archive.Kind != access.Live {
		a := &q.Archive
		asks = fmt.Sprintf("archive %d %d %d", a.Kind, a.Start, a.Length)
	}
	if !q.plays() {
		asks += string(q.Action)
	}
	return k.Key("question", string(q.Key[:]), q.Stream, q.Token, query, path, q.Device, string(at[:]), q.UserAgent, asks)
}

// shared gives one copy of texts that many sessions have in common.
func shared(s string) string { return unique.Make(s).Value() }
