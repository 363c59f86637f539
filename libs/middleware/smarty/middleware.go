package smarty

import (
	"net/url"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/upstream"
)

// method is the path of the check. Its last slash matters: without it Django answers
// with a redirect, which is not followed.
const method = "/tvmiddleware/api/streamservice/token/check/"

// Grant is how long a yes holds where Smarty does not say: the life of its tokens,
// TVMIDDLEWARE_STREAM_SERVICE_TOKEN_TTL.
const Grant = time.Hour

// Middleware speaks to one Smarty.
type Middleware struct {
	url              *url.URL
	sendName, sendIP bool
	names            map[string]string
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
	return &Middleware{url: address(u), sendName: o.SendName, sendIP: o.SendIP, names: o.Names}, nil
}

// address is where Smarty is asked: the host alone, or the whole address of the check
// under any API, with or without its last slash.
func address(u *url.URL) *url.URL {
	if strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/token/check") {
		return upstream.Below(u, "/")
	}
	return upstream.Below(u, method)
}

// Question implements upstream.Dialect: the viewer's query, in which what we send by
// ourselves replaces his parameters of that name.
func (m *Middleware) Question(req *access.Request) (*upstream.Question, string) {
	values, plain := upstream.Values(req.Query, "token")
	switch {
	case len(values) > 1:
		return nil, "repeated token"
	case !plain:
		return nil, "the token is not written as token=…"
	case len(values) == 0 && req.Token == "" || len(values) == 1 && values[0] == "":
		return nil, "missing token"
	}
	query := req.Query
	if m.sendName {
		query = upstream.Append(query, "name="+upstream.Escape(m.name(req)))
	}
	if m.sendIP {
		query = upstream.Append(query, "ip="+upstream.Escape(upstream.Address(req)))
	}
	if req.Token != "" && (len(values) == 0 || upstream.Unescape(values[0]) != req.Token) {
		// It came by another way, which the node's `token` names.
		query = upstream.Append(query, "token="+upstream.Escape(req.Token))
	}
	u := *m.url
	u.RawQuery = upstream.Join(u.RawQuery, query)
	return &upstream.Question{URL: &u, Header: upstream.AgentHeader(), Reads: true}, ""
}

func (m *Middleware) name(req *access.Request) string {
	name := upstream.Channel(req)
	if known, ok := m.names[name]; ok {
		return known
	}
	return name
}

// Identity implements upstream.Dialect.
func (m *Middleware) Identity(req *access.Request) string { return upstream.TokenOrQuery(req) }

// Read implements upstream.Dialect: status and `error` must both say yes.
func (m *Middleware) Read(r *upstream.Reply) (middleware.Answer, error) {
	a := r.Answer
	if r.Status == 200 && a.Allowed || r.Status >= 400 {
		text, err := verdict(r.Body)
		switch {
		case err != nil && a.Allowed:
			return middleware.Answer{}, err
		case text != "" && err == nil:
			a = upstream.Refusal(text)
			a.Location = r.Location
		}
	}
	a.WholeSession = a.Allowed // when it is over the token has expired for good
	return a, nil
}
