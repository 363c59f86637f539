package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// userAgent is what the author of Astra shows for its own requests; backends may
// have come to look for it (spec astra §9 U19).
const userAgent = "Astra"

// How much of an answer's body is read, and for how long at most.
const (
	drainBytes = 4 << 10
	drainTime  = 20 * time.Millisecond
)

// Middleware asks one backend. It is to be used behind a middleware.Guard.
type Middleware struct {
	base   *url.URL
	opts   Options
	expect expectation
	client nethttp.RoundTripper
	tracer trace.Tracer
}

var _ middleware.Keyed = (*Middleware)(nil)

// New makes a middleware that sends over client, which must neither follow
// redirects nor add headers: a Transport of this package.
func New(o *Options, client nethttp.RoundTripper, tracer trace.Tracer) (*Middleware, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	return &Middleware{base: base, opts: *o, expect: newExpectation(o.ExpectHeader), client: client, tracer: tracer}, nil
}

// Limits are what the options say for the guard.
func (o *Options) Limits() middleware.Limits {
	return middleware.Limits{
		Timeout:    o.Timeout.Duration(),
		Concurrent: o.MaxConcurrent,
		Failures:   o.Breaker.Failures,
		Open:       o.Breaker.Open.Duration(),
	}
}

// Key implements middleware.Keyed: everything that is sent.
func (m *Middleware) Key(req *access.Request) string {
	var b strings.Builder
	b.Grow(len(req.Query) + len(req.Path) + len(req.UserAgent) + 128)
	for _, part := range append(headerValues(req), req.Query) {
		fmt.Fprintf(&b, "%d:", len(part)) // no part can pass for the next one
		b.WriteString(part)
	}
	return b.String()
}

// Ask implements middleware.Middleware.
func (m *Middleware) Ask(ctx context.Context, req *access.Request) (middleware.Answer, error) {
	if !cleanQuery(req.Query) {
		return refusal("the viewer's query is too long, or holds spaces or control characters; the backend was not asked"), nil
	}
	ctx, span := m.tracer.Start(ctx, "middleware http", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", nethttp.MethodGet),
		// Never url.full: the query holds the viewer's token.
		attribute.String("server.address", m.base.Hostname()),
	))
	defer span.End()

	resp, err := m.client.RoundTrip(m.request(ctx, req))
	if err != nil {
		err = fault(ctx, err)
		span.SetStatus(codes.Error, err.Error())
		return middleware.Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read side only: nothing can be lost
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	a, err := m.read(resp)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	drain(resp.Body)
	return a, err
}

// request is the question as Astra asks it (spec astra §1.2).
func (m *Middleware) request(ctx context.Context, req *access.Request) *nethttp.Request {
	u := *m.base
	switch {
	case u.RawQuery == "":
		u.RawQuery = req.Query
	case req.Query != "":
		u.RawQuery += "&" + req.Query
	}
	h := make(nethttp.Header, len(headerNames)+2)
	for i, value := range headerValues(req) {
		// Written to the map directly: Set would change Astra's spelling.
		h[headerNames[i]] = []string{value}
	}
	h["User-Agent"] = []string{userAgent}
	if m.opts.Traceparent {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	}
	r := &nethttp.Request{
		Method: nethttp.MethodGet, URL: &u, Host: u.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return r.WithContext(ctx)
}

// headerNames are Astra's, in its own spelling.
var headerNames = [...]string{"X-Session-ID", "X-Channel-ID", "X-Real-IP", "X-Real-Path", "X-Real-UA", "X-Real-Host"}

// headerValues stand in the order of headerNames. A caller without ids of its own
// gives the session key and the stream.
func headerValues(req *access.Request) []string {
	session, channel, ip := req.CallerSession, req.Channel, ""
	if session == "" {
		session = req.Key.String()
	}
	if channel == "" {
		channel = req.Stream
	}
	if req.IP.IsValid() {
		ip = req.IP.String()
	}
	values := []string{session, channel, ip, req.Path, req.UserAgent, req.Host}
	for i, v := range values {
		// The edge cleans them; a control character that came through would make
		// the transport fail, and a viewer must not be able to fake an outage.
		values[i] = access.Clean(v, access.MaxPath)
	}
	return values
}

// cleanQuery says whether a query can stand in a request line as it is.
func cleanQuery(q string) bool {
	if len(q) > access.MaxQuery {
		return false
	}
	for i := range len(q) {
		if q[i] <= ' ' || q[i] == 0x7f {
			return false
		}
	}
	return true
}

// read turns status and headers into an answer (spec astra §5).
func (m *Middleware) read(resp *nethttp.Response) (middleware.Answer, error) {
	code := resp.StatusCode
	switch {
	case code == nethttp.StatusOK && m.expect.met(resp.Header):
		return granted(resp.Header), nil
	case code == nethttp.StatusOK:
		return refusal("the backend's 200 lacks the expected header"), nil
	case code >= 500 || slices.Contains(m.opts.UnavailableCodes, code):
		return middleware.Answer{}, fmt.Errorf("%w: it answered %d", middleware.ErrUnavailable, code)
	case code < 200:
		return middleware.Answer{}, fmt.Errorf("%w: its answer is broken", middleware.ErrUnavailable)
	}
	a := refusal(fmt.Sprintf("the backend answered %d", code))
	a.Location = m.location(resp)
	return a, nil
}

// drain reads what little is left, so that the connection can be used again. A
// body that is long, or drips, costs the connection and next to no time.
func drain(body io.ReadCloser) {
	late := time.AfterFunc(drainTime, func() { _ = body.Close() })
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, body, drainBytes) // nothing in it matters
}

// fault turns a transport's error into a constant text: the original may hold
// the address with its query, or what the backend sent.
func fault(ctx context.Context, err error) error {
	text := kindOfFault(err)
	if ctx.Err() != nil {
		text = "it did not answer in time"
		if errors.Is(ctx.Err(), context.Canceled) {
			text = "nobody waits for the answer"
		}
	}
	return fmt.Errorf("%w: %s", middleware.ErrUnavailable, text)
}
