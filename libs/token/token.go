// Package token is the contract of verifiers: checks that need computation
// alone. Each scheme has its own folder (securetoken, secure_link, jwt) with the same file names:
// doc.go, options.go, parse.go, verifier.go, sign.go, README.md, testdata/cases.
package token

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"usher.internal/libs/access"
)

// ErrNotMine says that the token has another form than this verifier's: the
// chain goes on to the next check. Any other error ends it for this check.
var ErrNotMine = errors.New("token is not of this scheme")

// ErrUnavailable says that nobody can tell now whether the token is good: the keys are out of
// reach. The check's fail mode decides. The verifier itself logs when that begins and ends.
var ErrUnavailable = errors.New("the keys that the token is checked with are not there")

// Denial is a token of this scheme that is not good for this viewer.
type Denial struct {
	Reason access.Reason // bad_token, expired, not_yet_valid, wrong_ip
	// Text says why, in words for an operator, without any part of the token.
	Text string
}

// Error implements error.
func (d *Denial) Error() string { return d.Text }

// Question is what a verifier may look at.
type Question struct {
	// Token is the viewer's token; "" only for kinds that carry their proof in the address.
	Token string
	Query string // viewer's raw query: some schemes carry more than the token there
	// Stream is the stream's name and Path the viewer's path, for bind: stream | path.
	Stream, Path string
	// Requested is the name that the viewer asked for, which may be an alias of Stream; ""
	// is Stream.
	Requested string
	// Host and UserAgent are the viewer's headers, "" where the caller does not pass them on.
	Host, UserAgent string
	IP              netip.Addr
	Now             time.Time
	// Running is true when a running session is re-decided: a token's own
	// times are then judged only if the check says recheck: true.
	Running bool
}

// Identity is what a good token says of its bearer.
type Identity struct {
	User   string // "" if the token names nobody
	Device string // "" if the token names none
	// Sessions is the token's own limit, 0 if it says none.
	Sessions int
	// Expires is set only by a check with recheck: a lease must end by then. The
	// zero Time means that the token's end does not bound the lease.
	Expires time.Time
	// Bearer stands for whoever brings the token where it names no user: sessions are counted
	// by it. "" means the question's own token. A scheme sets it whose proof stands elsewhere,
	// or can be written in more than one way.
	Bearer string
	// Claim must be checked cluster-wide before the user is believed; nil if not needed.
	Claim *Claim
}

// Claim ties a part of a token that a viewer could rewrite to the first value
// seen with the part that he could not (spec flussonic §3.4, ST-13).
type Claim struct {
	Name  string // what never changes, e.g. the hash; it is fingerprinted before it is stored
	Value string // what must stay as first seen, e.g. the user
}

// Verifier checks tokens of one scheme under one check's options. It is safe
// for concurrent use and compares in constant time. It computes; the one that has keys fetched
// may wait for them, within ctx and for a short fixed time.
type Verifier interface {
	Verify(ctx context.Context, q *Question) (Identity, error)
}
