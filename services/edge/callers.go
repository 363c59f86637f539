package edge

import (
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/caller/astra"
	"usher.internal/services/edge/internal/caller/flussonic"
	"usher.internal/services/edge/internal/caller/forwardauth"
)

// callers are the kinds of streaming servers and proxies that an edge understands. A
// new one is a folder under internal/caller and a line here.
func callers() []caller.Adapter {
	return []caller.Adapter{
		astra.Adapter{},
		flussonic.Adapter{},
		forwardauth.Nginx(),
		forwardauth.Caddy(),
		forwardauth.Traefik(),
	}
}

// adapters finds callers by their kind.
func adapters() map[string]caller.Adapter {
	m := make(map[string]caller.Adapter)
	for _, a := range callers() {
		m[a.Kind()] = a
	}
	return m
}
