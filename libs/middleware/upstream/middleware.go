package upstream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// Dialect is how one kind of upstream is spoken to. It is safe for concurrent use
// and keeps nothing of a request.
type Dialect interface {
	// Question puts the request in the upstream's words, the same ones every time. refused
	// says in words for an operator why it is a no that needs no asking, "" if it does.
	Question(req *access.Request) (q *Question, refused string)
	// Read judges what came back, beyond the common rules. The error wraps
	// middleware.ErrUnavailable.
	Read(r *Reply) (middleware.Answer, error)
	// Identity is the part of the request by which the upstream knows the viewer: his
	// token or query.
	Identity(req *access.Request) string
}

// Middleware asks one upstream in its Dialect. It is to be used behind a
// middleware.Guard.
type Middleware struct {
	dialect Dialect
	client  *Client
}

var (
	_ middleware.Keyed      = (*Middleware)(nil)
	_ middleware.Identifier = (*Middleware)(nil)
)

// New makes a middleware; kind names it in traces. The options must be valid. Close it
// after use.
func New(kind string, dialect Dialect, o *Options, d Deps) *Middleware {
	return &Middleware{dialect: dialect, client: newClient(kind, o, d)}
}

// Close gives back connections that are not in use.
func (m *Middleware) Close() { m.client.close() }

// Ask implements middleware.Middleware.
func (m *Middleware) Ask(ctx context.Context, req *access.Request) (middleware.Answer, error) {
	q, refused := m.question(req)
	if refused != "" {
		return Refusal(refused + "; the backend was not asked"), nil
	}
	r, err := m.client.ask(ctx, q)
	if err != nil {
		return middleware.Answer{}, err
	}
	return m.dialect.Read(r)
}

func (m *Middleware) question(req *access.Request) (*Question, string) {
	if !Clean(req.Query) {
		return nil, "the viewer's query is too long, or holds spaces or control characters"
	}
	return m.dialect.Question(req)
}

// Key implements middleware.Keyed: everything that is sent.
func (m *Middleware) Key(req *access.Request) string {
	q, refused := m.question(req)
	if refused != "" {
		return "refused: " + refused
	}
	var b strings.Builder
	b.Grow(len(q.URL.RawQuery) + len(q.Body) + 256)
	write := func(part string) { fmt.Fprintf(&b, "%d:%s", len(part), part) } // no part can pass for the next one
	write(q.URL.EscapedPath())
	write(q.URL.RawQuery)
	write(q.Body)
	for _, name := range slices.Sorted(maps.Keys(q.Header)) {
		write(name)
		write(strings.Join(q.Header[name], "\n"))
	}
	return b.String()
}

// Identity implements middleware.Identifier.
func (m *Middleware) Identity(req *access.Request) string { return m.dialect.Identity(req) }

// TokenOrQuery is the identity where the viewer's token is what counts.
func TokenOrQuery(req *access.Request) string {
	if req.Token != "" {
		return req.Token
	}
	return req.Query
}
