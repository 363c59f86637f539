// Package forwardauth speaks with proxies that ask about every HTTP request they
// serve: nginx (auth_request), Caddy (forward_auth) and Traefik (ForwardAuth).
//
// One adapter, one dialect a proxy. A dialect reads only the headers that its proxy
// writes: reading another's on the same path would let a viewer forge them. nginx
// writes none by itself, so its headers are as good as the operator's snippet
// (README.md), which overwrites every header that is read here.
package forwardauth

import (
	"time"

	"usher.internal/services/edge/internal/caller"
)

// Adapter is the dialect of one proxy.
type Adapter struct {
	kind string
	// method and ip are the headers that the proxy writes.
	method, ip string
	// locate reads the viewer's URL.
	locate func(*target) error
	// whole says that the proxy hands our answer to the viewer as it is; nginx
	// hands on nothing but the status.
	whole bool
}

var _ caller.Adapter = Adapter{}

// Kind implements caller.Adapter.
func (a Adapter) Kind() string { return a.kind }

// Budget implements caller.Adapter. The proxies wait 30 to 60 s; viewers do not.
func (Adapter) Budget() time.Duration { return 2 * time.Second }
