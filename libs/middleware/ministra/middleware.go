package ministra

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/upstream"
)

// Paths below the portal's base. Ministra PRO has them at the root of its host.
const (
	endpoint = "/server/api/chk_flussonic_tmp_link.php"
	resource = "/api/v1/tv_tmp_link/"
)

// Grant is how long a yes holds where the portal does not say, as with VariantJSON: what
// its endpoint for Flussonic always says.
const Grant = 36000 * time.Second

// Middleware speaks to one portal.
type Middleware struct {
	url     *url.URL
	json    bool
	numeric bool
	header  http.Header
}

var _ upstream.Dialect = (*Middleware)(nil)

// New makes the dialect of these options and reads the password.
func New(o *Options) (*Middleware, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	u, err := upstream.ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	m := &Middleware{url: address(u, o.Variant), json: o.Variant == VariantJSON, numeric: o.NumericUser, header: upstream.AgentHeader()}
	if o.User != "" {
		password, err := o.Password.Resolve()
		if err != nil {
			return nil, err
		}
		m.header["Authorization"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(o.User+":"+password))}
	}
	return m, nil
}

// address is where the portal is asked, from what the operator typed: the base with or
// without a slash, the host alone (Ministra PRO), or the whole address of a .php.
func address(u *url.URL, variant string) *url.URL {
	if variant == VariantJSON {
		base := *u
		base.Path, base.RawPath = strings.TrimSuffix(base.Path, endpoint), ""
		return upstream.Below(&base, resource)
	}
	if strings.HasSuffix(u.Path, ".php") {
		return u
	}
	return upstream.Below(u, endpoint)
}

// Question implements upstream.Dialect. Only the token goes out: it is all that the
// portal reads, and what is not sent cannot be taken for it.
func (m *Middleware) Question(req *access.Request) (*upstream.Question, string) {
	raw, refused := token(req)
	if refused != "" {
		return nil, refused
	}
	u := *m.url
	if !m.json {
		u.RawQuery = upstream.Join(u.RawQuery, "token="+raw)
		return &upstream.Question{URL: &u, Header: m.header}, ""
	}
	if !key.MatchString(raw) {
		return nil, "the token has another form than the portal's" // it would become a path
	}
	u.Path += raw
	return &upstream.Question{URL: &u, Header: m.header, Reads: true}, ""
}

// key is what may become a part of the path: the portal's keys are 32 hex digits.
var key = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// token is the viewer's token as it is to be sent. PHP takes the last of equal
// names, other readers the first: whoever sends two means to be read in two ways.
func token(req *access.Request) (raw, refused string) {
	values, plain := upstream.Values(req.Query, "token")
	switch {
	case len(values) > 1:
		return "", "repeated token"
	case !plain:
		return "", "the token is not written as token=…"
	case len(values) == 1 && (req.Token == "" || upstream.Unescape(values[0]) == req.Token):
		raw = values[0]
	default: // it came by another way, which the node's `token` names
		raw = upstream.Escape(req.Token)
	}
	if decoded := upstream.Unescape(raw); decoded == "" || decoded == "0" {
		return "", "missing token"
	}
	return raw, ""
}

// Identity implements upstream.Dialect: the token.
func (m *Middleware) Identity(req *access.Request) string {
	raw, refused := token(req)
	if refused != "" {
		return upstream.TokenOrQuery(req)
	}
	return upstream.Unescape(raw)
}

// Read implements upstream.Dialect.
func (m *Middleware) Read(r *upstream.Reply) (middleware.Answer, error) {
	a := r.Answer
	if !a.Allowed {
		return a, nil
	}
	if m.json {
		user, err := results(r.Body)
		if err != nil {
			return middleware.Answer{}, err
		}
		if user == "" {
			return upstream.Refusal("the portal does not know the token"), nil
		}
		if access.Clean(user, access.MaxName) != user {
			return upstream.Refusal("the portal named a user that is too long or not clean text"), nil
		}
		a.User = user
	}
	if m.numeric && !subscriber.MatchString(a.User) {
		return upstream.Refusal("the token is of another kind of Temporary URL: its user is no subscriber's number"), nil
	}
	return a, nil
}

// subscriber is the number of one. 1 is what links for Wowza leave in its place.
var subscriber = regexp.MustCompile(`^([2-9]|[1-9][0-9]{1,18})$`)
