package http

import (
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"go.yaml.in/yaml/v3"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
)

// httpCase is one entry of testdata/cases.
type httpCase struct {
	Name    string
	Options yaml.Node
	Base    string // path and query of the backend's address
	Request struct {
		Query, Path, Host, UA, Session, Channel, Stream, IP string
	}
	Sent struct {
		URI     *string           // request line's target; absent: not looked at
		Headers map[string]string // with their spelling
		Nothing bool
	}
	Answer struct {
		Status  int
		Headers map[string]string
		Body    string
	}
	Want struct {
		Allowed, Unavailable       bool
		User, Name, Location, Text string
		Sessions                   int
		Duration                   config.Duration
	}
}

func TestCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding cases: %v, %d files", err, len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []httpCase
		d := yaml.NewDecoder(strings.NewReader(string(raw)))
		d.KnownFields(true)
		if err := d.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				runCase(t, c)
			})
		}
	}
}

func runCase(t *testing.T, c httpCase) {
	t.Helper()
	answer := "HTTP/1.1 " + strconv.Itoa(c.Answer.Status) + " Some Words\r\n"
	for name, value := range c.Answer.Headers {
		answer += name + ": " + value + "\r\n"
	}
	answer += "Content-Length: " + strconv.Itoa(len(c.Answer.Body)) + "\r\n\r\n" + c.Answer.Body
	b := newRawBackend(t, answer)
	o := NewOptions()
	if !c.Options.IsZero() {
		if err := c.Options.Decode(o); err != nil {
			t.Fatal(err)
		}
	}
	o.URL = "http://" + b.address + c.Base
	o.Timeout = config.Duration(5 * time.Second)
	m := newMiddleware(t, o)
	req := &access.Request{
		Query: c.Request.Query, Path: c.Request.Path, Host: c.Request.Host, UserAgent: c.Request.UA,
		CallerSession: c.Request.Session, Channel: c.Request.Channel, Stream: c.Request.Stream,
		Key: access.Key{0xab, 15: 0xcd},
	}
	if c.Request.IP != "" {
		req.IP = netip.MustParseAddr(c.Request.IP)
	}
	got, err := m.Ask(t.Context(), req)
	b.check(t, c)
	if errors.Is(err, middleware.ErrUnavailable) != c.Want.Unavailable {
		t.Fatalf("Ask = %v, want unavailable: %v", err, c.Want.Unavailable)
	}
	if c.Want.Unavailable {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w := c.Want
	want := middleware.Answer{
		Allowed: w.Allowed, User: w.User, SessionName: w.Name, Sessions: w.Sessions,
		Duration: w.Duration.Duration(), Location: w.Location, Text: got.Text,
	}
	if got != want || !strings.Contains(got.Text, w.Text) || got.Text == "" {
		t.Errorf("Ask = %+v, want %+v with text %q", got, want, w.Text)
	}
}

// check holds what the backend was sent against the case.
func (b *rawBackend) check(t *testing.T, c httpCase) {
	t.Helper()
	if c.Sent.Nothing {
		if n := b.requests.Load(); n != 0 {
			t.Errorf("the backend was asked %d times, want never", n)
		}
		return
	}
	head := <-b.heads
	line, rest, _ := strings.Cut(head, "\r\n")
	if c.Sent.URI != nil && line != "GET "+*c.Sent.URI+" HTTP/1.1" {
		t.Errorf("request line = %q, want target %q", line, *c.Sent.URI)
	}
	got := map[string]string{}
	for h := range strings.SplitSeq(strings.TrimSpace(rest), "\r\n") {
		name, value, _ := strings.Cut(h, ":")
		got[name] = strings.TrimSpace(value)
	}
	for name, value := range c.Sent.Headers {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("header %s = %q (there: %v), want %q", name, v, ok, value)
		}
	}
	for name := range got {
		switch name {
		case "Host", "User-Agent", "X-Session-ID", "X-Channel-ID", "X-Real-IP", "X-Real-Path", "X-Real-UA", "X-Real-Host":
		default:
			t.Errorf("header %s was sent, which Astra would not", name)
		}
	}
}

// rawBackend answers every request with the same bytes and keeps what it was sent,
// byte for byte: net/http's server would hide the spelling of headers.
type rawBackend struct {
	address  string
	heads    chan string
	requests atomic.Int32
}

func newRawBackend(t *testing.T, answer string) *rawBackend {
	t.Helper()
	return newConnBackend(t, func(c net.Conn) { _, _ = io.WriteString(c, answer) })
}

// newConnBackend hands each connection to answer once a request's head was read.
func newConnBackend(t *testing.T, answer func(net.Conn)) *rawBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &rawBackend{address: l.Addr().String(), heads: make(chan string, 64)}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for {
					head, err := readHead(c)
					if err != nil {
						return
					}
					b.requests.Add(1)
					b.heads <- head
					answer(c)
				}
			}()
		}
	}()
	return b
}

func readHead(c net.Conn) (string, error) {
	var head strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			return "", err
		}
		head.Write(one)
	}
	return head.String(), nil
}

func newMiddleware(t *testing.T, o *Options) *Middleware {
	t.Helper()
	tr := NewTransport(o.Timeout.Duration(), o.MaxConcurrent, time.Now)
	t.Cleanup(tr.Close)
	m, err := New(o, tr, noop.NewTracerProvider().Tracer(""))
	if err != nil {
		t.Fatal(err)
	}
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
	tr := NewTransport(time.Second, 4, func() time.Time { return now })
	t.Cleanup(tr.Close)
	o := NewOptions()
	o.URL = s.URL
	m, err := New(o, tr, noop.NewTracerProvider().Tracer(""))
	if err != nil {
		t.Fatal(err)
	}
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
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Parallel()
	if tr := NewTransport(time.Second, 1, time.Now); tr.pool.Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
}

func TestKeyTellsQuestionsApart(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.URL = "http://127.0.0.1"
	m := newMiddleware(t, o)
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
		"a moved border": func(r *access.Request) { r.CallerSession, r.Channel = "1c", "" },
	} {
		b := a
		change(&b)
		if m.Key(&a) == m.Key(&b) {
			t.Errorf("%s: different questions have one key", name)
		}
	}
}
