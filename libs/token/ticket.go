package token

import (
	"net/netip"
	"time"
)

// Ticket is what a token is made for. A scheme refuses a ticket that asks for what its tokens
// cannot say: a token must not promise more than it holds.
type Ticket struct {
	// Stream and Path that the viewer asks for; Host and Query of his address where a scheme
	// signs them too.
	Stream, Path, Host, Query string
	// IP of the viewer; the zero Addr is for any, where the check's options allow that.
	IP netip.Addr
	// User and Device that the token names, Sessions its own limit; "" and 0 for none.
	User, Device string
	Sessions     int
	// Start and End bound the token, in whole seconds.
	Start, End time.Time
	// Salt is used in place of a random one, where the scheme has one.
	Salt string
	// Key is the private key in PEM or as a JWK, where the check itself knows only the public one.
	Key []byte
}

// Signed is a token, and how a viewer brings it.
type Signed struct {
	// Token is what stands where the node's `token` says, or the link's hash.
	Token string
	// Query and Path are the viewer's address with the proof in it; both "" for schemes whose
	// token stands where the node's `token` says.
	Query, Path string
}

// Part is one thing that stands in a token.
type Part struct {
	Name, Value string
	// Time is set where the value is one.
	Time time.Time
}
