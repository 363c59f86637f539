package decidetest

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/middleware/upstream"
)

// Upstream is an http.RoundTripper over hosts that exist nowhere. It answers by itself, or
// brings the questions to real servers on this machine that play those hosts.
type Upstream struct {
	start func(Backend) *host // nil: it answers by itself
	carry http.RoundTripper   // to the servers that it started

	mu    sync.Mutex // guards all below
	hosts map[string]*host
	asked map[string][]*http.Request
	calls map[string]*calls
}

// calls are those of a host under way, now and at most.
type calls struct{ now, most int }

// host is one name: a server, or only how it answers.
type host struct {
	Backend
	address string // of the server, "" if there is none
	product product
}

// NewUpstream knows no host: every question breaks. It answers by itself.
func NewUpstream() *Upstream {
	return &Upstream{hosts: map[string]*host{}, asked: map[string][]*http.Request{}, calls: map[string]*calls{}}
}

// NewServers knows no host; each that it is told of is a real server until the test ends,
// the double of a product if the Backend says so.
func NewServers(t testing.TB) *Upstream {
	t.Helper()
	carry := upstream.NewTransport(5*time.Second, 16, time.Now)
	t.Cleanup(carry.Close)
	u := NewUpstream()
	u.start, u.carry = func(b Backend) *host { return start(t, b) }, carry
	return u
}

// Set changes how a host answers. What a product knows already it goes on knowing.
func (u *Upstream) Set(name string, b Backend) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.hosts[name]
	switch {
	case u.start == nil:
		u.hosts[name] = &host{Backend: b}
		return
	case h == nil || h.Kind != b.Kind:
		h = u.start(b)
		u.hosts[name] = h
	}
	h.Backend = b
	h.product.set(b)
}

// Asked is how often the host was asked.
func (u *Upstream) Asked(name string) int { return len(u.Questions(name)) }

// AtOnce is how many questions the host had under way at the same time, at most.
func (u *Upstream) AtOnce(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.calls[name]; c != nil {
		return c.most
	}
	return 0
}

// begin counts a question as under way. It is called with mu held; what it returns is not.
func (u *Upstream) begin(name string) (end func()) {
	c := u.calls[name]
	if c == nil {
		c = new(calls)
		u.calls[name] = c
	}
	c.now++
	c.most = max(c.most, c.now)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		c.now--
	}
}

// Questions are those that the host was asked, the first one first.
func (u *Upstream) Questions(name string) []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*http.Request(nil), u.asked[name]...)
}

// Hosts are the names of those that were told of or asked.
func (u *Upstream) Hosts() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := map[string]bool{}
	for name := range u.hosts {
		names[name] = true
	}
	for name := range u.asked {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// RoundTrip implements http.RoundTripper.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	name := r.URL.Host
	u.asked[name] = append(u.asked[name], r)
	defer u.begin(name)()
	var b Backend
	address := ""
	if h := u.hosts[name]; h != nil {
		b, address = h.Backend, h.address
	}
	u.mu.Unlock()
	if address != "" {
		there := r.Clone(r.Context())
		there.URL.Host = address // r.Host stays: the server sees the name
		return u.carry.RoundTrip(there)
	}
	if err := b.wait(r); err != nil {
		return nil, err
	}
	if b.Status == 0 {
		return nil, ErrDown
	}
	h := http.Header{}
	for name, value := range b.Headers {
		h.Set(name, value)
	}
	return &http.Response{StatusCode: b.Status, Header: h, Body: io.NopCloser(strings.NewReader(b.Body)), Request: r}, nil
}

// wait lets the backend's time pass, or the asker's, which is an error.
func (b *Backend) wait(r *http.Request) error {
	if b.After <= 0 {
		return nil
	}
	timer := time.NewTimer(b.After)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
