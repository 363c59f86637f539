package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// ErrNoStream means that no stream takes the message: EnsureStreams has not run, or
// the stream's servers have no quorum.
var ErrNoStream = errors.New("no stream takes the message")

// PublishControl stores a control message and so tells it to all edges; seq is its
// place in the stream. Publishing the same message again, by whomever, changes
// nothing. Errors are ErrNoStream, ErrTimeout, ErrDisconnected or NATS's own; the
// message may be stored all the same, so publish it again.
func (c *Conn) PublishControl(ctx context.Context, m *usherv1.Control) (seq uint64, err error) {
	if err := names.CheckToken("control kind", m.GetKind()); err != nil {
		return 0, err
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("control message: %w: %w", ErrMalformed, err)
	}
	key := controlKey(m)
	id := m.GetKind() + "." + key + "." + strconv.FormatInt(m.GetAtUnixMs(), 10)
	return c.publish(ctx, telemetry.SpanSendControl, names.Control(m.GetKind(), key), names.ControlStream, id, data)
}

// controlKey makes the message last-per-subject: by its session or directive, else by what it is about.
func controlKey(m *usherv1.Control) string {
	if len(m.GetSessionId()) > 0 {
		return hex.EncodeToString(m.GetSessionId())
	}
	if id := m.GetDirective().GetId(); len(id) > 0 {
		return hex.EncodeToString(id)
	}
	h := sha256.New()
	for _, part := range []string{
		string(m.GetSessionKey()), string(m.GetSubject()), m.GetRealm(), m.GetUser(),
		m.GetStream(), m.GetDevice(), m.GetNode(),
	} {
		// The length before each part keeps a border between two from moving.
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Tick tells all edges the last sequence of the control stream. Workers call it every
// 500 ms; any number of them may.
func (c *Conn) Tick(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	st, err := c.hub.Stream(ctx, names.ControlStream)
	if err != nil {
		return fmt.Errorf("control stream: %w", publishError(ctx, err))
	}
	info := st.CachedInfo()
	data, err := proto.Marshal(&usherv1.Tick{
		LastSequence:  info.State.LastSeq,
		UnixMs:        time.Now().UnixMilli(),
		CreatedUnixUs: incarnationOf(info).UnixMicro(),
	})
	if err != nil {
		return fmt.Errorf("tick: %w", err)
	}
	if err := c.nc.Publish(names.Tick, data); err != nil {
		return fmt.Errorf("tick: %w", publishError(ctx, err))
	}
	return nil
}

// publish stores a message in a stream and waits for the stream's word.
func (c *Conn) publish(ctx context.Context, spanName, subject, stream, id string, data []byte, more ...jetstream.PublishOpt) (uint64, error) {
	ctx, span := c.tracer.Start(ctx, spanName, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(
			attribute.String(telemetry.MessagingSystem, telemetry.NATS),
			attribute.String(telemetry.NATSStream, stream),
		))
	defer span.End()
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	l := c.link.Load()
	unlink := context.AfterFunc(l.ctx, func() { cancel(ErrDisconnected) })
	defer unlink()
	if !c.nc.IsConnected() {
		span.SetStatus(codes.Error, "disconnected")
		return 0, ErrDisconnected
	}
	msg := &nats.Msg{Subject: subject, Header: make(nats.Header, 4), Data: data}
	propagation.TraceContext{}.Inject(ctx, Carrier(msg.Header))
	more = append(more, jetstream.WithMsgID(id), jetstream.WithExpectStream(stream))
	ack, err := c.js.PublishMsg(ctx, msg, more...)
	if err != nil {
		err = publishError(ctx, err)
		span.SetStatus(codes.Error, err.Error())
		return 0, err
	}
	return ack.Sequence, nil
}

func publishError(ctx context.Context, err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, nats.ErrNoResponders) {
		return ErrNoStream
	}
	return requestError(ctx, err)
}
