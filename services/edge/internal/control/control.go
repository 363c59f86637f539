// Package control is the contract of control APIs: what a streaming server tells of its sessions
// when it is asked, and how one of them is ended. An API is a folder here, with the same file
// names as its siblings: doc.go, list.go, kick.go, README.md; what they share stands here: the HTTP
// client, and how a list is read that nobody promised to be sound.
//
// Nothing that a server answers can hurt the edge: lists are read row by row and bounded, what
// cannot be understood is left out and counted, and an answer that breaks off is no list.
package control

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Session is one row of a server's list.
type Session struct {
	// ID is the server's own: not empty, without control characters and at most access.MaxName bytes.
	ID string
	// What the server says of the viewer, "" and the zero Addr if nothing.
	Stream, Token, User, UserAgent, Country string
	IP                                      netip.Addr
	// Opened is by the server's clock, zero if not said; Age is how long ago that was by any clock.
	Opened time.Time
	Age    time.Duration
	// Bytes and Playing are totals since it was opened.
	Bytes   int64
	Playing time.Duration
	// Ended says that it is over, where a server lists such ones too; Reason is its word for why.
	Ended  bool
	Reason string
}

// Summary says what kind of list it was.
type Summary struct {
	// Pages is over one where the list may have changed while it was read.
	Pages int
	// Rows is how many there were, those of no use included; Bad is how many rows could not be understood.
	Rows, Bad int
}

// Server is one streaming server's control API. It is safe for concurrent use.
type Server interface {
	// List gives every session that the server has now, one after another; take keeps nothing of
	// what it is given. An error means that the list is not whole, whatever was given before.
	List(ctx context.Context, take func(*Session)) (Summary, error)
	// Kick ends a session. ErrGone says that the server has none by that id.
	Kick(ctx context.Context, id string) error
}

// Reauther is a Server that asks about all viewers of a stream anew when it is told to.
type Reauther interface {
	Server
	Reauth(ctx context.Context, stream string) error
}

// Kind is one control API that the edge understands.
type Kind struct {
	// Caller is the kind of node that has it.
	Caller string
	New    func(c *Client) Server
}

// What can be wrong with a call. No error repeats what the server sent, nor the address, which
// holds the session's id.
var (
	// ErrGone means that there is no such session or path.
	ErrGone = errors.New("the server knows no such thing (404)")
	// ErrRefused means that user and password were not accepted.
	ErrRefused = errors.New("the server refuses user and password")
	// ErrAnswer means that the server answered what is none of its API's answers.
	ErrAnswer = errors.New("the server's answer is none of its API")
	// ErrSecret means that the password cannot be read on this machine.
	ErrSecret = errors.New("the password cannot be read here")
	// ErrTooLong means that the list has no end that we would wait for.
	ErrTooLong = errors.New("the server's list is too long")
)
