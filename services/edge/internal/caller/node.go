package caller

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"usher.internal/libs/match"
	"usher.internal/schemas/proto/usherv1"
)

// Node is a streaming server that may ask, compiled from the policy's projection
// and immutable.
type Node struct {
	Name, Caller string
	// From are the addresses that the question itself may come from.
	From []netip.Prefix
	// Edge that the node belongs to, "" for any.
	Edge string
	// URL says how the viewer's path is read; nil is the default reading.
	URL *match.URL
	// Token lists where the viewer's token may stand, in order.
	Token []Place
	// ByToken says that a question without a token follows no other session of
	// its device (`segments: token`).
	ByToken bool
	// Keys are what a session key is hashed over for callers without an id of their own.
	Keys []string
	// Device is where the viewer's device id stands, nil if nowhere.
	Device *Place
	// IPHeader names the viewer's address, "" for the dialect's usual header; it is
	// believed from peers in IPTrust.
	IPHeader string
	IPTrust  []netip.Prefix
	// Idle is the silence after which a session is over; where Hold is not
	// zero the caller shows no life, and Hold counts instead.
	Idle, Hold time.Duration
	// Lease is how long the edge may answer from memory, unless a rule says otherwise.
	Lease time.Duration
	// Budget is how long the caller may be kept waiting.
	Budget time.Duration
	// RedirectStatus is what goes with a redirect towards Astra, 0 for the default; towards
	// Flussonic a redirect is sent only where it is 302.
	RedirectStatus int
	// NoHeaders keeps user and limit from Flussonic (`headers: off`).
	NoHeaders bool
	// Rechecks says that the caller asks again when the lease that it was told is over:
	// that is its next sign of life.
	Rechecks bool
	// Shadow says that the policy is only tried out here, so that whoever it would refuse may
	// be let in.
	Shadow bool
	// Upstream says that a middleware may be asked whatever the stream.
	Upstream bool
	// Control is how its control API is reached, nil: not at all.
	Control *Control
}

// Control is how a node's control API is reached. The password is a reference, which is read on
// this machine.
type Control struct {
	URL, User, Password string
	// Poll is how often its list of sessions is asked for, Timeout how long one call may take.
	Poll, Timeout time.Duration
	// Kick says that sessions may be ended there.
	Kick bool
}

// Defaults of a node where the projection leaves a field empty.
const (
	defaultLease         = 3 * time.Minute
	defaultIdle          = time.Minute
	minBudget            = 50 * time.Millisecond
	maxBudget            = 20 * time.Second
	defaultPoll, minPoll = 15 * time.Second, time.Second
	defaultTimeout       = 5 * time.Second
)

// Session keys that a node may name.
const (
	KeyToken     = "token"
	KeyStream    = "stream"
	KeyDevice    = "device"
	KeyIP        = "ip"
	KeyUserAgent = "user_agent"
)

// Compile reads a node of the projection; budget is what its caller gets unless the
// node says otherwise. The policy has been checked before it was spread, so an error
// means that it was compiled by a newer version.
func Compile(v *usherv1.NodeView, budget time.Duration) (*Node, error) {
	n := &Node{
		Name: v.GetName(), Caller: v.GetCaller(), Edge: v.GetEdge(),
		ByToken:        v.GetSegments() == "token",
		IPHeader:       v.GetClientIpHeader(),
		Idle:           millis(v.GetIdleMs(), defaultIdle),
		Hold:           millis(v.GetHoldMs(), 0),
		Lease:          millis(v.GetLeaseMs(), defaultLease),
		Budget:         min(max(millis(v.GetBudgetMs(), budget), minBudget), maxBudget),
		RedirectStatus: int(v.GetRedirectStatus()),
		NoHeaders:      v.GetNoHeaders(),
		Rechecks:       v.GetRechecks(),
		Shadow:         v.GetShadow(),
		Upstream:       v.GetUpstream(),
	}
	if c := v.GetControl(); c != nil {
		n.Control = &Control{
			URL: c.GetUrl(), User: c.GetUser(), Password: c.GetPassword(), Kick: !c.GetNoKick(),
			Poll: max(millis(c.GetPollMs(), defaultPoll), minPoll), Timeout: millis(c.GetTimeoutMs(), defaultTimeout),
		}
	}
	var err error
	if n.From, err = prefixes(v.GetFrom()); err != nil {
		return nil, fmt.Errorf("node %q: from: %w", n.Name, err)
	}
	if n.IPTrust, err = prefixes(v.GetClientIpTrust()); err != nil {
		return nil, fmt.Errorf("node %q: client_ip: trust: %w", n.Name, err)
	}
	if len(n.IPTrust) == 0 {
		n.IPTrust = n.From
	}
	if v.GetUrl() != "" {
		if n.URL, err = match.ParseURL(v.GetUrl()); err != nil {
			return nil, fmt.Errorf("node %q: url: %w", n.Name, err)
		}
	}
	if err := n.places(v); err != nil {
		return nil, fmt.Errorf("node %q: %w", n.Name, err)
	}
	return n, n.keys(v.GetSessionKeys())
}

func (n *Node) places(v *usherv1.NodeView) error {
	texts := v.GetToken()
	if len(texts) == 0 {
		texts = []string{"query:token"}
	}
	for _, text := range texts {
		p, err := ParsePlace(text)
		if err != nil {
			return fmt.Errorf("token: %w", err)
		}
		n.Token = append(n.Token, p)
	}
	if v.GetDevice() == "" {
		return nil
	}
	p, err := ParsePlace(v.GetDevice())
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	n.Device = &p
	return nil
}

func (n *Node) keys(names []string) error {
	if len(names) == 0 {
		names = []string{KeyToken, KeyStream, KeyDevice}
	}
	for _, name := range names {
		switch name {
		case KeyToken, KeyStream, KeyDevice, KeyIP, KeyUserAgent:
			n.Keys = append(n.Keys, name)
		default:
			return fmt.Errorf("node %q: session_keys: %q is not known", n.Name, name)
		}
	}
	return nil
}

// Stream reads the stream's name out of the viewer's path, as it stood in the
// request line: percent-encoded, without query.
func (n *Node) Stream(path string) (string, bool) {
	if n.URL != nil {
		return n.URL.Stream(path)
	}
	return match.DefaultStream(path)
}

// Admits says whether a question may come from this TCP peer.
func (n *Node) Admits(peer netip.Addr) bool { return within(n.From, peer) }

// Silence is how long a session of this node may show no life, with this lease.
func (n *Node) Silence(lease time.Duration) time.Duration {
	switch {
	case n.Hold > 0:
		return n.Hold
	case n.Rechecks:
		return lease + n.Idle
	}
	return n.Idle
}

func within(ps []netip.Prefix, ip netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		if !strings.Contains(text, "/") {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return nil, err
			}
			ip = Plain(ip)
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func millis(ms int64, otherwise time.Duration) time.Duration {
	if ms <= 0 {
		return otherwise
	}
	return time.Duration(ms) * time.Millisecond
}
