package forwardauth

import (
	"net/http"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// Nginx is the dialect of nginx's auth_request with the headers of our snippet, which
// are also those of ingress-nginx (X-Original-URL holds scheme and host too).
func Nginx() Adapter {
	return Adapter{kind: "nginx", method: "X-Original-Method", ip: "X-Real-Ip", locate: original}
}

// Caddy is the dialect of Caddy's forward_auth.
func Caddy() Adapter {
	return Adapter{kind: "caddy", method: "X-Forwarded-Method", ip: "X-Forwarded-For", locate: forwarded, whole: true}
}

// Traefik is the dialect of Traefik's ForwardAuth.
func Traefik() Adapter {
	return Adapter{kind: "traefik", method: "X-Forwarded-Method", ip: "X-Forwarded-For", locate: forwarded, whole: true}
}

// target is the viewer's URL as it is found.
type target struct {
	r         *http.Request
	uri, host string
}

const (
	headerURI          = "X-Original-Uri"
	headerURL          = "X-Original-Url"
	headerForwardedURI = "X-Forwarded-Uri"
	headerForwardHost  = "X-Forwarded-Host"
)

// longest URI that can be right: path, "?", query, and scheme and host before them.
const maxURI = access.MaxPath + 1 + access.MaxQuery + access.MaxHost + len("https://")

func original(t *target) error {
	uri, err := caller.One(t.r.Header, headerURI)
	if err != nil {
		return err
	}
	url, err := caller.One(t.r.Header, headerURL)
	if err != nil {
		return err
	}
	switch {
	case uri != "" && url != "":
		// One of them was written by the viewer, and we can't know which.
		return caller.Badf("X-Original-URI and X-Original-URL were both sent; the proxy must clear the one it does not set")
	case uri != "":
		t.uri, t.host = uri, t.r.Host
		return nil
	case url == "":
		return caller.Badf("X-Original-URI is missing")
	}
	rest, ok := strings.CutPrefix(url, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(url, "http://"); !ok {
			return caller.Badf("X-Original-URL does not begin with http:// or https://")
		}
	}
	at := strings.IndexByte(rest, '/')
	if at <= 0 {
		return caller.Badf("X-Original-URL has no host or no path")
	}
	t.host, t.uri = rest[:at], rest[at:]
	if caller.Host(t.host) != t.host {
		return caller.Badf("X-Original-URL holds a host that is none")
	}
	return nil
}

func forwarded(t *target) error {
	var err error
	if t.uri, err = caller.Need(t.r.Header, headerForwardedURI, maxURI); err != nil {
		return err
	}
	t.host, err = caller.One(t.r.Header, headerForwardHost)
	return err
}
