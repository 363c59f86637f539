package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"usher.internal/libs/config"
)

const (
	// maxBody is the most of one answer that is read: 200,000 sessions of an Astra in one list.
	maxBody = 64 << 20
	// maxRest is read of an answer that nobody needs, so that its connection can be used again.
	maxRest        = 64 << 10
	maxHeaderBytes = 64 << 10
	// connectionAge is when connections are made anew, so that a name that moved is noticed.
	connectionAge = 5 * time.Minute
)

// Config is how a server is reached.
type Config struct {
	// URL of the server without the API's own path and without a slash at its end.
	URL, User string
	// Password is a reference, file:… or env:…, that is resolved anew whenever it was refused.
	Password string
	// Timeout is for one call, a page of a list.
	Timeout time.Duration
}

// Client calls one server's API: directly, without following redirects, with the certificate
// verified, and with keep-alive. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	pool *http.Transport

	mu       sync.Mutex // guards all below
	password string
	known    bool // password is what the reference led to
	born     time.Time
}

// NewClient makes a client; Close it after use. It calls nobody yet.
func NewClient(c Config) (*Client, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("the address of the control API cannot be read")
	}
	pool := &http.Transport{
		Proxy:       nil, // a server is asked directly, whatever HTTP_PROXY says
		DialContext: (&net.Dialer{Timeout: c.Timeout}).DialContext, TLSHandshakeTimeout: c.Timeout,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: connectionAge,
		MaxResponseHeaderBytes: maxHeaderBytes, DisableCompression: true,
	}
	return &Client{
		cfg: c, base: base, pool: pool, born: time.Now(),
		http: &http.Client{
			Transport: pool,
			// A redirect would take the password elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.pool.CloseIdleConnections() }

// Call is one call: method and path below the server's address, already escaped, with its query.
type Call struct {
	Method, Path, Query string
	// Body is JSON, nil for none.
	Body []byte
	// Read reads the answer of a success; nil: nobody needs it.
	Read func(io.Reader) error
}

// Do makes a call, within the client's timeout.
func (c *Client) Do(ctx context.Context, call Call) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	r, err := c.request(ctx, call)
	if err != nil {
		return err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return plain(err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if err := c.status(res.StatusCode); err != nil {
		_, _ = io.CopyN(io.Discard, res.Body, maxRest) // only for keep-alive
		return err
	}
	if call.Read == nil {
		_, _ = io.CopyN(io.Discard, res.Body, maxRest)
		return nil
	}
	body := &io.LimitedReader{R: res.Body, N: maxBody + 1}
	err = call.Read(body)
	switch {
	case body.N <= 0:
		return ErrTooLong
	case err != nil:
		return plain(err)
	}
	_, _ = io.CopyN(io.Discard, res.Body, maxRest)
	return nil
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	password, err := c.secret()
	if err != nil {
		return nil, err
	}
	u := *c.base
	u.Path, u.RawPath, u.RawQuery = "", "", call.Query
	// Path is escaped: set as opaque text it is sent as it is.
	u.Opaque = "//" + u.Host + c.base.EscapedPath() + call.Path
	var body io.Reader
	if call.Body != nil {
		body = bytes.NewReader(call.Body)
	}
	r, err := http.NewRequestWithContext(ctx, call.Method, c.base.String(), body)
	if err != nil {
		return nil, ErrAnswer // neither method nor base can be wrong here
	}
	r.URL = &u
	r.Header.Set("Accept", "application/json")
	if call.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.User != "" {
		r.SetBasicAuth(c.cfg.User, password)
	}
	return r, nil
}

// secret gives the password, and lets connections end that are too old.
func (c *Client) secret() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.born) >= connectionAge {
		c.born = now
		c.pool.CloseIdleConnections()
	}
	if c.known || c.cfg.Password == "" {
		return c.password, nil
	}
	s, err := config.ParseSecret(c.cfg.Password)
	if err == nil {
		c.password, err = s.Resolve()
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSecret, err)
	}
	c.known = true
	return c.password, nil
}

// status reads the answer's code; a refusal has the password read anew next time.
func (c *Client) status(code int) error {
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known = false
		return ErrRefused
	case code == http.StatusNotFound:
		return ErrGone
	}
	return fmt.Errorf("%w: status %d", ErrAnswer, code)
}

// plain takes the address out of an error: it holds the id of a session.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the server did not answer in time")
	}
	return err
}

// Segment is a path element that holds an id: escaped, and never one that a server would
// take for a way up. ok is false where no such element can be made.
func Segment(id string) (escaped string, ok bool) {
	if id == "" || strings.Trim(id, ".") == "" {
		return "", false
	}
	return url.PathEscape(id), true
}
