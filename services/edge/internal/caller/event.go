package caller

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// EventKind is what an event says of its session.
type EventKind int

// Kinds of events.
const (
	// Other concerns no session of a viewer, or nothing that we keep.
	Other EventKind = iota
	// Opened comes before anybody was asked whether the viewer may play.
	Opened
	// Alive means that the session plays.
	Alive
	// Ended means that it is over.
	Ended
)

// Event is what a server says of one of its sessions otherwise than by asking. What it does not
// say is empty.
type Event struct {
	Kind    EventKind
	Session string // the caller's own id
	// What is said of the viewer.
	Stream, Token, User, UserAgent, Country string
	IP                                      netip.Addr
	At, Opened                              time.Time // by the server's clock
	// Totals since the server opened the session.
	Bytes   int64
	Playing time.Duration
	Reason  string // of an end, in the server's own word
}

// Reporter is an Adapter whose servers also tell of their sessions by events, on a hook of their own.
type Reporter interface {
	Adapter
	// Hears says whether the request brings events, by its path below the node.
	Hears(r *http.Request) bool
	// Events reads them from a body that is bounded and may end in the middle. f is given each
	// one, and false for one that cannot be understood: its neighbours are read all the same. The
	// error is a *Bad where what follows can never be read, else that of the body.
	Events(r *http.Request, n *Node, f func(e *Event, ok bool)) error
}

// HookEvents is the hook below a node's address on which its server posts events.
const HookEvents = "events"

// Below is what follows the node in the request's path.
func Below(r *http.Request, kind string) string {
	_, below, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"+kind+"/"), "/")
	return below
}

// maxEvent is the longest event that is read: every field at its cap, escaped.
const maxEvent = 64 << 10

// Facts are the fields of one event, under the names that it was sent with.
type Facts map[string]any

// EachFacts reads a JSON array of objects, one object, or several after each other. f is given nil
// for what is no object.
func EachFacts(body io.Reader, f func(Facts)) error {
	in := bufio.NewReader(body)
	first, err := firstByte(in)
	if errors.Is(err, io.EOF) {
		return nil // nothing is said
	}
	if err != nil {
		return unreadable(err)
	}
	d := json.NewDecoder(in)
	array := first == '['
	if array {
		if _, err := d.Token(); err != nil {
			return unreadable(err)
		}
	}
	for !array || d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) && !array {
			return nil
		} else if err != nil {
			return unreadable(err)
		}
		f(facts(raw))
	}
	if _, err := d.Token(); err != nil {
		return unreadable(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return unreadable(err)
	}
	return nil
}

// firstByte is the first one that is no space; it stays to be read.
func firstByte(in *bufio.Reader) (byte, error) {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return 0, err
		}
		if b != ' ' && b != '\t' && b != '\r' && b != '\n' {
			return b, in.UnreadByte()
		}
	}
}

func facts(raw json.RawMessage) Facts {
	if len(raw) > maxEvent || !utf8.Valid(raw) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var f Facts
	if d.Decode(&f) != nil {
		return nil
	}
	return f
}

// unreadable is a *Bad for what is no JSON, and the reader's own error where that failed.
func unreadable(err error) error {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	if err == nil || syntax || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return Badf("the events are not JSON: an array of objects, or one object")
	}
	return fmt.Errorf("reading events: %w", err)
}
