// Package astra is the control API of Astra: POST /control/ with a command, Basic authorization
// of an administrator (README.md).
package astra

import (
	"sync/atomic"

	"usher.internal/services/edge/internal/control"
)

// Kind is the control API of nodes of caller astra.
func Kind() control.Kind {
	return control.Kind{Caller: "astra", New: func(c *control.Client) control.Server { return &Server{client: c} }}
}

// Server is one Astra.
type Server struct {
	client *control.Client
	// numeric says that its lists write ids as numbers.
	numeric atomic.Bool
}

var _ control.Server = (*Server)(nil)
