package flussonic

import (
	"net/http"
	"net/url"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/upstream"
)

// Grant is how long a yes holds without X-AuthDuration, as in Flussonic.
const Grant = 180 * time.Second

// Middleware speaks to one backend.
type Middleware struct {
	url  *url.URL
	post bool
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
	return &Middleware{url: u, post: o.Method == MethodPost}, nil
}

// Question implements upstream.Dialect. The viewer's query is one encoded value, so
// that nothing in it can pass for a field of ours.
func (m *Middleware) Question(req *access.Request) (*upstream.Question, string) {
	u := *m.url
	fields := upstream.FlussonicFields(req)
	if m.post {
		return &upstream.Question{
			URL: &u, Header: http.Header{"Content-Type": {"application/json"}}, Body: upstream.JSON(fields), Ranges: true,
		}, ""
	}
	u.RawQuery = upstream.Join(u.RawQuery, upstream.Query(fields))
	return &upstream.Question{URL: &u, Ranges: true}, ""
}

// Identity implements upstream.Dialect.
func (m *Middleware) Identity(req *access.Request) string { return upstream.TokenOrQuery(req) }

// Read implements upstream.Dialect: the common rules are this protocol's.
func (m *Middleware) Read(r *upstream.Reply) (middleware.Answer, error) { return r.Answer, nil }
