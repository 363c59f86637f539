package caller

import (
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"

	"usher.internal/libs/access"
)

// maxHops is the longest X-Forwarded-For that is read.
const maxHops = 64

// Strict returns s if it can be a name: UTF-8 without control characters and at most limit
// bytes. Names are refused rather than mended or cut, since two of them could
// become one. what names it in the error.
func Strict(what, s string, limit int) (string, error) {
	if len(s) > limit {
		return "", Badf("%s is longer than %d bytes", what, limit)
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return "", Badf("%s holds control characters", what)
		}
	}
	if !utf8.ValidString(s) {
		return "", Badf("%s is not UTF-8", what)
	}
	return s, nil
}

// One returns the only value of a header, "" if it was not sent. Two lines of it
// are refused: a proxy that appends would let the viewer choose ours. name is canonical.
func One(h http.Header, name string) (string, error) {
	values := h[name]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", Badf("%s was sent twice", name)
}

// Need is One for a header that must be there, strictly read.
func Need(h http.Header, name string, limit int) (string, error) {
	value, err := One(h, name)
	if err != nil {
		return "", err
	}
	if value == "" {
		return "", Badf("%s is missing", name)
	}
	return Strict(name, value, limit)
}

// CheckPath refuses a path that servers could read differently from us, beyond
// what the reading of the stream's name refuses itself.
func CheckPath(path string) error {
	if _, err := Strict("the path", path, access.MaxPath); err != nil {
		return err
	}
	switch {
	case path == "" || path[0] != '/':
		return Badf("the path does not begin with a slash")
	case strings.ContainsAny(path, "# \\"):
		return Badf("the path holds a character that must be percent-encoded")
	case strings.ContainsAny(path, "%;") && ambiguous.MatchString(path): // the bytes that each of them needs
		return Badf("the path holds what some servers read as another path")
	}
	return nil
}

// ambiguous is what servers read in different ways: an encoded backslash, an encoded slash or dot that was encoded
// twice, and a parent element with a parameter. A rule for one path must not open another.
var ambiguous = regexp.MustCompile(`(?i)%5c|%25(25)*(2e|2f|5c)|(^|/)(\.|%2e){1,2}(;|%3b)`)

// Host returns a Host header without what cannot be in one; port and case are kept.
func Host(s string) string {
	if strings.ContainsAny(s, "/?#@\\ ") {
		return ""
	}
	return access.Clean(s, access.MaxHost)
}

// Plain is an address without zone, and IPv4 where it was written inside IPv6: one
// viewer has one text.
func Plain(ip netip.Addr) netip.Addr { return ip.WithZone("").Unmap() }

// ParseIP reads a viewer's address; name is the header it stood in.
func ParseIP(name, text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil {
		return netip.Addr{}, Badf("%s holds no address", name)
	}
	return Plain(ip), nil
}

// ClientIP is the viewer's address. The node's header (else usual, the dialect's own)
// is believed when the peer is in the node's trust; else the peer itself is the viewer.
// Of a chain (X-Forwarded-For) it is the last hop that is not in trust: what stands
// to the left of it was written by the viewer.
func (n *Node) ClientIP(h http.Header, peer netip.Addr, usual string) (netip.Addr, error) {
	if !within(n.IPTrust, peer) {
		return peer, nil
	}
	name := usual
	if n.IPHeader != "" {
		name = http.CanonicalHeaderKey(n.IPHeader)
	}
	if name == "X-Forwarded-For" {
		return n.lastUntrusted(h[name])
	}
	value, err := One(h, name)
	if err != nil {
		return netip.Addr{}, err
	}
	if value == "" {
		return netip.Addr{}, Badf("%s is missing", name)
	}
	return ParseIP(name, value)
}

func (n *Node) lastUntrusted(lines []string) (ip netip.Addr, err error) {
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest := lines[i]; rest != ""; hops++ {
			hop := rest
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, hop = rest[:at], rest[at+1:]
			} else {
				rest = ""
			}
			if hops == maxHops {
				return netip.Addr{}, Badf("X-Forwarded-For has more than %d hops", maxHops)
			}
			if ip, err = ParseIP("X-Forwarded-For", hop); err != nil || !within(n.IPTrust, ip) {
				return ip, err
			}
		}
	}
	if !ip.IsValid() {
		return ip, Badf("X-Forwarded-For is missing")
	}
	return ip, nil
}
