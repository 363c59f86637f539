package upstream

import (
	"context"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/middleware"
)

// MaxBody is how much of an answer's body is read where it matters.
const MaxBody = 64 << 10

// How much of a body that does not matter is read, and for how long at most.
const (
	drainBytes = 4 << 10
	drainTime  = 20 * time.Millisecond
)

// ownAgent is sent where the question names none.
const ownAgent = "Usher"

// Question is what goes to an upstream, byte for byte.
type Question struct {
	URL *url.URL
	// Header keeps the spelling of its names.
	Header nethttp.Header
	// Body, if not empty, makes it a POST.
	Body string
	// Reads says that the body of the answer matters.
	Reads bool
	// Ranges says that the body of a yes may name parts of the archive (allowed_dvr_ranges).
	Ranges bool
}

// Reply is what came back.
type Reply struct {
	// Answer is what status, headers and the expectations say.
	middleware.Answer
	Status int
	// Body is whole and at most MaxBody long; nil unless the Question reads it.
	Body []byte
}

// Client asks one upstream by the common rules.
type Client struct {
	kind   string
	opts   *Options
	expect expectation
	round  nethttp.RoundTripper
	own    *Transport // nil if it was given
	tracer trace.Tracer
}

// Deps are what a Client works with.
type Deps struct {
	// HTTP carries the questions; it must neither follow redirects nor add headers. nil
	// gives the upstream a Transport of its own.
	HTTP   nethttp.RoundTripper
	Tracer trace.Tracer
	Now    func() time.Time
}

func newClient(kind string, o *Options, d Deps) *Client {
	c := &Client{kind: kind, opts: o, expect: newExpectation(o.ExpectHeader), round: d.HTTP, tracer: d.Tracer}
	if c.round == nil {
		c.own = NewTransport(o.Timeout.Duration(), o.MaxConcurrent, d.Now)
		c.round = c.own
	}
	return c
}

// close gives back connections that are not in use.
func (c *Client) close() {
	if c.own != nil {
		c.own.Close()
	}
}

// ask sends the question. The error wraps middleware.ErrUnavailable and holds no part
// of question and answer but the status.
func (c *Client) ask(ctx context.Context, q *Question) (*Reply, error) {
	r := c.request(q)
	ctx, span := c.tracer.Start(ctx, "middleware "+c.kind, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", r.Method),
		// Never url.full: the query holds the viewer's token.
		attribute.String("server.address", q.URL.Hostname()),
	))
	defer span.End()
	if c.opts.Traceparent {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	}
	reply, err := c.send(ctx, r, q)
	if reply != nil {
		span.SetAttributes(attribute.Int("http.response.status_code", reply.Status))
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		return nil, err
	}
	return reply, nil
}

// request makes what the transport takes.
func (c *Client) request(q *Question) *nethttp.Request {
	h := make(nethttp.Header, len(q.Header)+3)
	h["User-Agent"] = []string{ownAgent}
	for name, values := range q.Header {
		h[name] = values // written directly: Set would change the spelling
	}
	r := &nethttp.Request{
		Method: nethttp.MethodGet, URL: q.URL, Host: q.URL.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if q.Body != "" {
		r.Method, r.ContentLength = nethttp.MethodPost, int64(len(q.Body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(q.Body)), nil }
		r.Body, _ = r.GetBody() // a string can always be read
		// Not sent, but the transport may then ask again on a new connection when the
		// kept one turns out to be closed, as it does for a GET.
		h["X-Idempotency-Key"] = []string{}
	}
	return r
}

func (c *Client) send(ctx context.Context, r *nethttp.Request, q *Question) (*Reply, error) {
	resp, err := c.round.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, fault(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // read side only: nothing can be lost
	reply := &Reply{Status: resp.StatusCode}
	if reply.Answer, err = c.read(resp); err != nil {
		drain(resp.Body)
		return reply, err
	}
	if !q.Reads && (c.opts.ExpectBody == "" || !reply.Allowed) {
		return reply, c.unread(ctx, resp, reply, q.Ranges)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	switch {
	case err == nil && q.Reads && len(body) > MaxBody:
		err = fmt.Errorf("%w: its answer is too long", middleware.ErrUnavailable)
	case err != nil:
		err = fault(ctx, err)
	case q.Reads:
		reply.Body = body
	}
	if err != nil && reply.Allowed {
		return reply, err // half a body says nothing; a no by its status stands
	}
	reply.Answer = c.expected(reply.Answer, body)
	if q.Ranges && reply.Allowed {
		reply.Reach = ReadRanges(body)
	}
	return reply, nil
}

// unread is the end of an answer whose body does not matter, unless it is a page.
func (c *Client) unread(ctx context.Context, resp *nethttp.Response, reply *Reply, ranges bool) error {
	defer drain(resp.Body)
	if !reply.Allowed {
		return nil
	}
	page, err := c.isPage(ctx, resp)
	if page {
		reply.Answer = Refusal("a web page answered in the place of the backend; expect_header or expect_body can say what a yes looks like")
	}
	if err != nil || page || !ranges {
		return err
	}
	c.ranges(resp, reply)
	return nil
}

// drain reads what little is left, so that the connection can be used again. A
// body that is long, or drips, costs the connection and next to no time.
func drain(body io.ReadCloser) {
	late := time.AfterFunc(drainTime, func() { _ = body.Close() })
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, body, drainBytes) // nothing in it matters
}
