// Package middleware is the contract of an operator's own subscriber systems
// that are asked upstream. Each kind has its own folder (http, ministra, …) with the
// same file names: doc.go, options.go, middleware.go, README.md, testdata/cases. What
// they share is in upstream.
package middleware

import (
	"context"
	"errors"
	"time"

	"usher.internal/libs/access"
)

// ErrUnavailable means that nobody could be asked (connection, timeout, 5xx, 408,
// 425, 429, broken HTTP, open breaker): the fail mode decides. It is never a refusal.
var ErrUnavailable = errors.New("middleware is unavailable")

// Answer is what a middleware said.
type Answer struct {
	Allowed bool
	// Text says why in words for an operator, without any part of the query.
	Text string
	// User is the account (X-UserId, else X-Session-Name), "" if it named none.
	User string
	// SessionName is the label for the caller's session list (X-Session-Name).
	SessionName string
	// Sessions is the middleware's own limit (X-Max-Sessions, X-Unique), 0 if it named none.
	Sessions int
	// Reach is how far into the archive the viewer may go (allowed_dvr_ranges), nil if it did not say.
	Reach *access.Reach
	// Duration is how long the yes holds (X-AuthDuration), 0 if it named none.
	Duration time.Duration
	// Grant is how long a yes may be kept at most, 0 if only Duration and the policy say.
	Grant time.Duration
	// Recheck is after how long a kept yes is asked about again, 0 for never while it holds.
	Recheck time.Duration
	// Grace, of a no, is how long a yes that was due to be asked about again holds on
	// nevertheless, counted from when it was due; 0 ends it at once.
	Grace time.Duration
	// WholeSession, of a yes, says that what it was given for is worth nothing once the yes
	// is over, so that asking again about a session that it opened could only hurt: such a
	// session goes on by this yes until it ends, while new ones are asked about.
	WholeSession bool
	// Location is where the viewer should be sent, "" if nowhere.
	Location string
}

// Middleware asks one upstream. It is safe for concurrent use; ctx bounds the call.
// The error wraps ErrUnavailable.
type Middleware interface {
	Ask(ctx context.Context, req *access.Request) (Answer, error)
}

// Identifier is a Middleware that can say by what it knows a viewer. Two requests
// with one identity are the same viewer to it, whatever else they carry.
type Identifier interface {
	// Identity is that part of the request, never to be stored or shown but as a keyed
	// fingerprint.
	Identity(req *access.Request) string
}
