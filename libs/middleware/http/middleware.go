package http

import (
	"net/url"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/upstream"
)

// Middleware asks one backend as Astra does.
type Middleware struct{ base *url.URL }

var _ upstream.Dialect = (*Middleware)(nil)

// New makes the dialect of these options.
func New(o *Options) (*Middleware, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	base, err := upstream.ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	return &Middleware{base: base}, nil
}

// Question implements upstream.Dialect: own query first, then the viewer's bytes.
func (m *Middleware) Question(req *access.Request) (*upstream.Question, string) {
	u := *m.base
	u.RawQuery = upstream.Join(u.RawQuery, req.Query)
	return &upstream.Question{URL: &u, Header: upstream.AstraHeader(req), Ranges: true}, ""
}

// Read implements upstream.Dialect: the common rules say it all.
func (m *Middleware) Read(r *upstream.Reply) (middleware.Answer, error) { return r.Answer, nil }

// Identity implements upstream.Dialect.
func (m *Middleware) Identity(req *access.Request) string { return upstream.TokenOrQuery(req) }
