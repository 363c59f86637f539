// Package viewer writes the question that a streaming server would ask an edge about one of
// its viewers: for dry runs, and for curl lines that can be pasted.
package viewer

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"usher.internal/libs/match"
	"usher.internal/libs/policy"
)

// Viewer is one viewer's request to a streaming server.
type Viewer struct {
	// URL that the player opens, absolute or from its path on.
	URL string
	// Channel is the channel's id that Astra sends beside the URL, "" to have the stream
	// read out of the path.
	Channel string
	// IP of the viewer; the zero Addr stands for whoever asks.
	IP netip.Addr
	// UserAgent of the player.
	UserAgent string
	// Header are more headers of the player, as its server would pass them on.
	Header http.Header
}

// Question is what the node would send to an edge at base ("http://host:port") about the
// viewer. RemoteAddr is set to an address that the node may ask from and whose word about
// the viewer's address is believed.
func Question(n *policy.Node, v Viewer, base string) (*http.Request, error) {
	u, err := url.Parse(v.URL)
	if err != nil || !strings.HasPrefix(u.EscapedPath(), "/") {
		return nil, fmt.Errorf("%q is no address of a stream: give one such as https://tv.example.com/hls/news/index.m3u8?token=x, or its path", v.URL)
	}
	target := base + "/v1/" + n.Caller + "/" + n.Name
	switch {
	case n.Caller == "flussonic":
		target += "?" + flussonic(n, v, u)
	case n.Caller == "astra" && u.RawQuery != "":
		target += "?" + u.RawQuery
	}
	r, err := http.NewRequest(http.MethodGet, target, nil) //nolint:noctx // a description, not sent with this context
	if err != nil {
		return nil, fmt.Errorf("writing the question of node %s: %w", n.Name, err)
	}
	for name, values := range v.Header {
		r.Header[name] = slices.Clone(values)
	}
	r.RemoteAddr = netip.AddrPortFrom(peer(n), 1).String()
	switch n.Caller {
	case "flussonic":
	case "astra":
		astra(r.Header, v, u)
	default:
		forwardAuth(r.Header, n, v, u)
	}
	return r, nil
}

// flussonic is what Flussonic asks when the viewer opens a session: the stream is its
// own, read out of the path as it reads it.
func flussonic(n *policy.Node, v Viewer, u *url.URL) string {
	name := v.Channel
	if name == "" && n.URL != nil {
		name, _ = n.URL.Stream(u.EscapedPath())
	} else if name == "" {
		name, _ = match.DefaultStream(u.EscapedPath())
	}
	ip := v.IP
	if !ip.IsValid() {
		ip = policy.ExampleIP // it always tells an address
	}
	q := url.Values{
		"name": {name}, "proto": {"hls"}, "ip": {ip.String()}, "request_type": {"new_session"}, "request_number": {"0"},
		"session_id": {"00000000-0000-4000-8000-000000000001"}, "stream_clients": {"1"}, "total_clients": {"1"},
	}
	for field, value := range map[string]string{
		"token": u.Query().Get("token"), "qs": u.RawQuery, "user_agent": v.UserAgent, "host": u.Host,
		"referer": v.Header.Get("Referer"),
	} {
		if value != "" {
			q.Set(field, value)
		}
	}
	return q.Encode()
}

func astra(h http.Header, v Viewer, u *url.URL) {
	h.Set("X-Session-ID", "1")
	h.Set("X-Real-Path", u.EscapedPath())
	set(h, "X-Channel-ID", v.Channel)
	set(h, "X-Real-UA", v.UserAgent)
	set(h, "X-Real-Host", u.Host)
	if v.IP.IsValid() {
		h.Set("X-Real-IP", v.IP.String())
	}
}

func forwardAuth(h http.Header, n *policy.Node, v Viewer, u *url.URL) {
	uri, address := "X-Original-URI", "X-Real-IP"
	if n.Caller != "nginx" {
		uri, address = "X-Forwarded-Uri", "X-Forwarded-For"
		set(h, "X-Forwarded-Host", u.Host)
	}
	h.Set(uri, u.RequestURI())
	if n.ClientIPHeader != "" {
		address = n.ClientIPHeader
	}
	if v.IP.IsValid() {
		h.Set(address, v.IP.String())
	}
	set(h, "User-Agent", v.UserAgent)
}

func set(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// peer is an address that the node may ask from, if possible one that is believed.
func peer(n *policy.Node) netip.Addr {
	for _, from := range n.From {
		for _, trust := range n.ClientIPTrust {
			if trust.Contains(from.Addr()) {
				return from.Addr()
			}
			if from.Contains(trust.Addr()) {
				return trust.Addr()
			}
		}
	}
	if len(n.From) == 0 {
		return netip.Addr{}
	}
	return n.From[0].Addr()
}

// Curl is the question as a line for a POSIX shell.
func Curl(r *http.Request) string {
	line := []string{"curl", "-i"}
	for _, name := range sortedNames(r.Header) {
		for _, value := range r.Header[name] {
			line = append(line, "-H", quote(name+": "+value))
		}
	}
	return strings.Join(append(line, quote(r.URL.String())), " ")
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
