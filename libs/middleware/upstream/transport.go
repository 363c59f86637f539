package upstream

import (
	"net"
	nethttp "net/http"
	"sync"
	"time"
)

// connectionAge is how long connections are used before new ones are made, which
// resolve the backend's name again; with idleTime after it, less than 5 minutes.
const (
	connectionAge  = 4 * time.Minute
	idleTime       = 30 * time.Second
	maxHeaderBytes = 16 << 10
)

// Transport is the one pool of connections to an upstream. It never goes through
// a proxy of the environment, never asks for compression, and bounds an answer's
// header.
type Transport struct {
	timeout time.Duration
	idle    int
	now     func() time.Time

	mu   sync.Mutex // guards pool and born
	pool *nethttp.Transport
	born time.Time
}

var _ nethttp.RoundTripper = (*Transport)(nil)

// NewTransport makes a pool whose connections must stand within timeout and of
// which up to idle are kept. Close it after use.
func NewTransport(timeout time.Duration, idle int, now func() time.Time) *Transport {
	t := &Transport{timeout: timeout, idle: idle, now: now}
	t.pool, t.born = t.make(), now()
	return t
}

// RoundTrip implements http.RoundTripper. It follows no redirects.
func (t *Transport) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	return t.current().RoundTrip(r)
}

// Close closes connections that are not in use.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pool.CloseIdleConnections()
}

// current is the pool to use now. A busy connection would never fall idle and
// never see that its name has moved, so the whole pool is replaced in time; calls
// under way finish on the old one, whose connections then fall idle and close.
func (t *Transport) current() *nethttp.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.now(); now.Sub(t.born) >= connectionAge {
		t.pool.CloseIdleConnections()
		t.pool, t.born = t.make(), now
	}
	return t.pool
}

func (t *Transport) make() *nethttp.Transport {
	return &nethttp.Transport{
		Proxy:                  nil, // an upstream is asked directly, whatever HTTP_PROXY says
		DialContext:            (&net.Dialer{Timeout: t.timeout}).DialContext,
		TLSHandshakeTimeout:    t.timeout,
		MaxIdleConnsPerHost:    t.idle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
	}
}
