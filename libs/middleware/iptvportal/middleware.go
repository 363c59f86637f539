package iptvportal

import (
	"net/url"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/upstream"
)

// Paths below the portal's base; their last slash belongs to them.
const (
	plainPath     = "/auth/arescrypt/"
	flussonicPath = "/auth/flussonic/arescrypt/"
)

// keptRates is how many update rates a session of the portal lasts.
const keptRates = 3

// Middleware speaks to one portal.
type Middleware struct {
	url                  *url.URL
	flussonic            bool
	kept, recheck, grace time.Duration
	identify             []string
}

var _ upstream.Dialect = (*Middleware)(nil)

// New makes the dialect of these options.
func New(o *Options) (*Middleware, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	u, err := upstream.ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	return &Middleware{
		url: address(u, o.Variant), flussonic: o.Variant == VariantFlussonic,
		kept: keptRates * o.UpdateRate.Duration(), recheck: o.Recheck.Duration(), grace: o.grace(), identify: o.Identify,
	}, nil
}

// address is where the portal is asked: below the base, or at an address that already
// says so.
func address(u *url.URL, variant string) *url.URL {
	switch {
	case strings.Contains(u.Path+"/", "/auth/"):
		return u
	case variant == VariantFlussonic:
		return upstream.Below(u, flussonicPath)
	}
	return upstream.Below(u, plainPath)
}

// Question implements upstream.Dialect.
func (m *Middleware) Question(req *access.Request) (*upstream.Question, string) {
	u := *m.url
	if !m.flussonic {
		u.RawQuery = upstream.Join(u.RawQuery, req.Query)
		return &upstream.Question{URL: &u, Header: upstream.AstraHeader(req)}, ""
	}
	fields := append(upstream.FlussonicFields(req), upstream.Field{Name: "soft_limitation", Value: true})
	u.RawQuery = upstream.Join(u.RawQuery, upstream.Query(fields))
	return &upstream.Question{URL: &u}, ""
}

// Identity implements upstream.Dialect: the named parameters as they stand in the
// query, else all of it.
func (m *Middleware) Identity(req *access.Request) string {
	var b strings.Builder
	found := false
	for _, name := range m.identify {
		values, _ := upstream.Values(req.Query, name)
		b.WriteString(name)
		for _, v := range values {
			found = true
			b.WriteString("=" + v)
		}
		b.WriteByte('&')
	}
	switch {
	case found:
		return b.String()
	case req.Query != "":
		return req.Query
	}
	return req.Token
}

// Read implements upstream.Dialect: a yes is asked about again, and a no to that is
// not the last word for a while.
func (m *Middleware) Read(r *upstream.Reply) (middleware.Answer, error) {
	a := r.Answer
	if !a.Allowed {
		a.Grace = m.grace
		return a, nil
	}
	a.Grant, a.Recheck = m.kept, m.recheck
	return a, nil
}
