// Package caller is the contract of adapters: one for each kind of streaming server
// or proxy that asks. An adapter reads its caller's question into our vocabulary
// and writes our decision in the caller's dialect; it decides nothing itself.
//
// Each kind has its own folder with the same file names: doc.go, parse.go, answer.go,
// README.md (what the operator types in that product) and testdata (golden answers).
// What more than one adapter needs stands here: where a token may stand (Place), whose
// address is believed (Node.ClientIP), and which outside text is refused.
package caller

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"usher.internal/libs/access"
)

// Adapter speaks one caller's dialect. It is safe for concurrent use.
type Adapter interface {
	// Kind is the caller's name in the URL and in the policy.
	Kind() string
	// Budget is how long this caller may be kept waiting when its node is not known.
	Budget() time.Duration
	// Parse reads the question: Stream, Token, Query, Path, Host, IP, UserAgent,
	// Referer, Device (only if the node names a place for it), Channel,
	// CallerSession, and Action, Update, Archive where the caller knows of them. peer is the TCP peer, unmapped and without zone, and has been found
	// in the node's `from` already. The error is always a *Bad.
	Parse(r *http.Request, n *Node, peer netip.Addr, q *access.Request) error
	// Answer writes the decision so that this caller understands it, and nothing
	// that it could take for "auth service is away". n is nil when the node is not known.
	Answer(w http.ResponseWriter, n *Node, d *access.Decision)
}

// BodyReader is an Adapter whose questions may have a body. Parse reads it whole, within a
// deadline that the edge has set, and bounds its size.
type BodyReader interface {
	Adapter
	ReadsBody()
}

// Bad is a question that cannot be understood, or that could be understood in
// two ways: it is refused with reason bad_request.
type Bad struct {
	// Text says what is wrong, in words for an operator. It names headers and
	// parameters but never holds what stood in them.
	Text string
}

// Error implements error.
func (b *Bad) Error() string { return b.Text }

// Badf makes a Bad. Its arguments must be names, never outside text.
func Badf(format string, args ...any) error { return &Bad{Text: fmt.Sprintf(format, args...)} }
