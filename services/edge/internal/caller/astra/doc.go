// Package astra speaks with Cesbo Astra and Alta as their "HTTP Request" backend
// (cesbo/help: astra/delivery-http/auth-backend.md, alta/ott-settings/auth-backend.md).
//
// Astra asks once, when a session opens, with a GET that carries the viewer's
// query and X- headers. It lets everybody in when nobody answers, and what it does on
// 5xx or 3xx is not documented: so every no is 403, and there is an answer
// inside 800 ms whatever happens. Alta sends no channel id and X-Real-Origin in
// place of X-Real-Host; both are served by the one adapter.
package astra

import (
	"time"

	"usher.internal/services/edge/internal/caller"
)

// Kind is the caller's name in the URL and in the policy.
const Kind = "astra"

// Adapter is Astra's and Alta's dialect.
type Adapter struct{}

var _ caller.Adapter = Adapter{}

// Kind implements caller.Adapter.
func (Adapter) Kind() string { return Kind }

// Budget implements caller.Adapter. Astra's own time limit is not documented.
func (Adapter) Budget() time.Duration { return 800 * time.Millisecond }
