package upstream

import (
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// plain is the plainest Dialect: Astra's, and a text of the answer where it is a yes.
type plain struct{ url string }

func (p plain) Question(req *access.Request) (*Question, string) {
	u, err := url.Parse(p.url)
	if err != nil {
		return nil, "the address is broken"
	}
	u.RawQuery = Join(u.RawQuery, req.Query)
	return &Question{URL: u, Header: AstraHeader(req), Reads: strings.Contains(req.Query, "read"), Body: req.Device}, ""
}

func (plain) Read(r *Reply) (middleware.Answer, error) {
	if r.Allowed {
		r.User += string(r.Body)
	}
	return r.Answer, nil
}

func (plain) Identity(req *access.Request) string { return TokenOrQuery(req) }

func deps() Deps { return Deps{Tracer: noop.NewTracerProvider().Tracer(""), Now: time.Now} }

func serve(t *testing.T, h nethttp.HandlerFunc) *Middleware {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	o := Defaults()
	m := New("test", plain{s.URL}, &o, deps())
	t.Cleanup(m.Close)
	return m
}

func TestConnectionsAreKeptAndReplaced(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		_, _ = io.WriteString(w, "a short page")
	}))
	s.Config.ConnState = func(_ net.Conn, st nethttp.ConnState) {
		if st == nethttp.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	now := time.Now()
	o, d := Defaults(), deps()
	d.Now = func() time.Time { return now }
	m := New("test", plain{s.URL}, &o, d)
	t.Cleanup(m.Close)
	ask := func() {
		t.Helper()
		for range 10 {
			if a, err := m.Ask(t.Context(), &access.Request{}); err != nil || !a.Allowed {
				t.Fatalf("Ask = %+v, %v", a, err)
			}
		}
	}
	ask()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for ten questions, want 1", n)
	}
	now = now.Add(connectionAge)
	ask()
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections after the pool's time, want 2", n)
	}
	if connectionAge+idleTime >= 5*time.Minute {
		t.Error("a name is not resolved again within 5 minutes")
	}
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Parallel()
	if tr := NewTransport(time.Second, 1, time.Now); tr.pool.Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
}

func TestBodyIsReadWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size, status int
		unavailable  bool
	}{
		"none":                  {0, 200, false},
		"as much as may be":     {MaxBody, 200, false},
		"one byte more":         {MaxBody + 1, 200, true},
		"one byte more of a no": {MaxBody + 1, 403, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, strings.Repeat("a", c.size))
			})
			a, err := m.Ask(t.Context(), &access.Request{Query: "read"})
			if errors.Is(err, middleware.ErrUnavailable) != c.unavailable {
				t.Fatalf("Ask = %v, want unavailable: %v", err, c.unavailable)
			}
			if err == nil && c.status == 200 && len(a.User) != c.size {
				t.Errorf("read %d bytes, want %d", len(a.User), c.size)
			}
		})
	}
}

func TestPostIsAskedAgainOnANewConnection(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	m := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		asked.Add(1)
		if body, _ := io.ReadAll(r.Body); r.Method != nethttp.MethodPost || string(body) != "{}" || len(r.Header["X-Idempotency-Key"]) > 0 {
			t.Errorf("asked %s %q with %v", r.Method, body, r.Header)
		}
		if asked.Load() == 2 { // the first on a kept connection
			c, _, _ := w.(nethttp.Hijacker).Hijack()
			_ = c.Close()
		}
	})
	for range 2 {
		if a, err := m.Ask(t.Context(), &access.Request{Device: "{}"}); err != nil || !a.Allowed {
			t.Errorf("Ask = %+v, %v", a, err)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

func TestKeyTellsQuestionsApart(t *testing.T) {
	t.Parallel()
	o := Defaults()
	m := New("test", plain{"http://127.0.0.1"}, &o, deps())
	t.Cleanup(m.Close)
	a := access.Request{Query: "token=a", Path: "/p", UserAgent: "VLC", Host: "h", CallerSession: "1", Channel: "c", IP: netip.MustParseAddr("10.0.0.5")}
	same := a
	same.Node, same.Received = "other", time.Now()
	if m.Key(&a) != m.Key(&same) {
		t.Error("equal questions have different keys")
	}
	for name, change := range map[string]func(*access.Request){
		"query":          func(r *access.Request) { r.Query = "token=b" },
		"path":           func(r *access.Request) { r.Path = "/q" },
		"user agent":     func(r *access.Request) { r.UserAgent = "MAG" },
		"host":           func(r *access.Request) { r.Host = "i" },
		"session":        func(r *access.Request) { r.CallerSession = "2" },
		"channel":        func(r *access.Request) { r.Channel = "d" },
		"address":        func(r *access.Request) { r.IP = netip.MustParseAddr("10.0.0.6") },
		"body":           func(r *access.Request) { r.Device = "{}" },
		"refused":        func(r *access.Request) { r.Query = "a b" },
		"a moved border": func(r *access.Request) { r.CallerSession, r.Channel = "1c", "" },
	} {
		b := a
		change(&b)
		if m.Key(&a) == m.Key(&b) {
			t.Errorf("%s: different questions have one key", name)
		}
	}
}
