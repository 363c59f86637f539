// Package flussonic speaks with Flussonic Media Server as its auth backend: on_play (and
// its older names auth and sessions) asks with a GET, on_publish with a JSON POST
// (spec flussonic §1).
//
// Flussonic keeps a decision for X-AuthDuration seconds and asks again with
// update_session, always under the session's own id. A yes is 200, a no is 403. Exactly
// 500 means to it that nobody could tell: a running session goes on and a new one is
// refused, or let in where its own configuration says `allow default`. Every other code is
// a no to some version, so that none is ever sent.
package flussonic

import (
	"time"

	"usher.internal/services/edge/internal/caller"
)

// Kind is the caller's name in the URL and in the policy.
const Kind = "flussonic"

// Adapter is Flussonic's dialect.
type Adapter struct{}

var _ caller.BodyReader = Adapter{}

// Kind implements caller.Adapter.
func (Adapter) Kind() string { return Kind }

// ReadsBody implements caller.BodyReader: on_publish posts.
func (Adapter) ReadsBody() {}

// Budget implements caller.Adapter: Flussonic waits 3 s, and takes the end of that for a no.
func (Adapter) Budget() time.Duration { return 2500 * time.Millisecond }
