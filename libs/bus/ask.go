package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// defaultDeadline is for requests whose context has none; maxDeadline is the most
// that a worker believes.
const (
	defaultDeadline = 5 * time.Second
	maxDeadline     = 30 * time.Second
)

// route is a kind of request: everything that Ask and ServeAuth, SendSeats and
// ServeSeats have to agree on.
type route struct {
	kind             string
	subject          func(region, edge string) string
	subjects         func(region string) string
	request, process string // span names
}

func authRoute() route {
	return route{
		kind: "auth", subject: names.Auth, subjects: names.AuthOf,
		request: telemetry.SpanRequestAuth, process: telemetry.SpanProcessAuth,
	}
}

func seatsRoute() route {
	return route{
		kind: "seats", subject: names.Seats, subjects: names.SeatsOf,
		request: telemetry.SpanRequestSeats, process: telemetry.SpanProcessSeats,
	}
}

func playlistRoute() route {
	return route{
		kind: "playlist", subject: names.Playlist, subjects: names.PlaylistOf,
		request: telemetry.SpanRequestPlaylist, process: telemetry.SpanProcessPlaylist,
	}
}

// template is the subject with placeholders, as spans show it.
func (r route) template() string {
	_, t, _ := strings.Cut(r.request, " ")
	return t
}

// Ask sends a question to the workers of a region and waits for the answer of one of
// them: one attempt. The worker is told what is left until ctx's deadline. A reply
// with a status other than STATUS_DECIDED is not an error. Errors are ErrNoWorker,
// ErrTimeout, ErrDisconnected, ErrMalformed, or ctx's when it was cancelled.
func (c *Conn) Ask(ctx context.Context, region, edge string, req *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	reply := new(usherv1.AuthReply)
	if err := c.request(ctx, authRoute(), region, edge, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// SendSeats sends renewals and closes to the workers of a region. A reply without ok
// means: send them again. Errors are those of Ask; sending again is always safe.
func (c *Conn) SendSeats(ctx context.Context, region, edge string, req *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	reply := new(usherv1.SeatsReply)
	if err := c.request(ctx, seatsRoute(), region, edge, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// AskPlaylist asks the workers of a region for a subscriber's playlist. A reply with a status
// other than STATUS_DECIDED is not an error. Errors are those of Ask.
func (c *Conn) AskPlaylist(ctx context.Context, region, edge string, req *usherv1.PlaylistRequest) (*usherv1.PlaylistReply, error) {
	reply := new(usherv1.PlaylistReply)
	if err := c.request(ctx, playlistRoute(), region, edge, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

func (c *Conn) request(ctx context.Context, r route, region, edge string, req, reply proto.Message) error {
	subject, err := c.subject(r, region, edge)
	if err != nil {
		return err
	}
	ctx, span := c.tracer.Start(ctx, r.request, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	begin := time.Now()
	err = c.exchange(ctx, subject, req, reply)
	result := resultOf(reply, err)
	c.metrics.request.WithLabelValues(r.kind).Observe(time.Since(begin).Seconds())
	c.metrics.requests.WithLabelValues(r.kind, result).Inc()
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String(telemetry.MessagingSystem, telemetry.NATS),
			attribute.String(telemetry.RPCSystem, telemetry.NATS),
			attribute.String(telemetry.DestinationTemplate, r.template()),
			attribute.String(telemetry.Region, region),
			attribute.String(telemetry.Result, result),
		)
		if err != nil {
			span.SetStatus(codes.Error, result)
		}
	}
	return err
}

// subject makes and checks a subject once: a name with a dot or a wildcard would
// reach somebody else.
func (c *Conn) subject(r route, region, edge string) (string, error) {
	key := [3]string{r.kind, region, edge}
	if s, ok := c.subjects.Load(key); ok {
		return s.(string), nil
	}
	if err := names.CheckToken("region", region); err != nil {
		return "", err
	}
	if err := names.CheckToken("edge", edge); err != nil {
		return "", err
	}
	s := r.subject(region, edge)
	c.subjects.Store(key, s)
	return s, nil
}

func (c *Conn) exchange(ctx context.Context, subject string, req, reply proto.Message) error {
	data, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("request: %w: %w", ErrMalformed, err)
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline).Milliseconds()
	if left <= 0 {
		return ErrTimeout
	}
	// nats.go leaves a request waiting for its own timeout when the connection goes.
	l := c.link.Load()
	stop := context.AfterFunc(l.ctx, func() { cancel(ErrDisconnected) })
	defer stop()
	if !c.nc.IsConnected() {
		return ErrDisconnected
	}
	msg := &nats.Msg{Subject: subject, Header: make(nats.Header, 2), Data: data}
	msg.Header[names.DeadlineHeader] = []string{strconv.FormatInt(left, 10)}
	propagation.TraceContext{}.Inject(ctx, Carrier(msg.Header))
	answer, err := c.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return requestError(ctx, err)
	}
	if err := proto.Unmarshal(answer.Data, reply); err != nil {
		return fmt.Errorf("reply: %w: %w", ErrMalformed, err)
	}
	return nil
}

// withDeadline makes sure that the context ends by itself and can be ended with a cause.
func withDeadline(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancelCause(ctx)
	}
	timed, cancel := context.WithTimeout(ctx, defaultDeadline)
	both, end := context.WithCancelCause(timed)
	return both, func(cause error) { end(cause); cancel() }
}

func requestError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNoWorker
	case errors.Is(context.Cause(ctx), ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return ErrDisconnected
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return ErrTimeout
	case errors.Is(err, context.Canceled):
		return context.Cause(ctx)
	}
	return fmt.Errorf("request over NATS: %w", err)
}

// resultOf is the label that tells requests apart in metrics and spans.
func resultOf(reply proto.Message, err error) string {
	switch {
	case err == nil:
		return statusOf(reply)
	case errors.Is(err, ErrNoWorker):
		return "no_worker"
	case errors.Is(err, ErrTimeout):
		return "timeout"
	case errors.Is(err, ErrDisconnected):
		return "disconnected"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "error"
}

func statusOf(reply proto.Message) string {
	switch r := reply.(type) {
	case interface {
		GetStatus() usherv1.AuthReply_Status
	}:
		if s, ok := strings.CutPrefix(r.GetStatus().String(), "STATUS_"); ok {
			return strings.ToLower(s)
		}
		return "error" // a number that this version doesn't know
	case *usherv1.SeatsReply:
		if !r.GetOk() {
			return "again"
		}
	}
	return "decided"
}
