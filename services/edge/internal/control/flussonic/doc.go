// Package flussonic is the control API of Flussonic: /streamer/api/v3, and the older
// /flussonic/api where a server does not have that (README.md).
package flussonic

import (
	"sync/atomic"

	"usher.internal/services/edge/internal/control"
)

// Kind is the control API of nodes of caller flussonic.
func Kind() control.Kind {
	return control.Kind{Caller: "flussonic", New: func(c *control.Client) control.Server { return &Server{client: c} }}
}

// Server is one Flussonic.
type Server struct {
	client *control.Client
	// legacy says that it had no list where today's servers have it.
	legacy atomic.Bool
}

var _ control.Reauther = (*Server)(nil)
