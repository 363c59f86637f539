package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// Held is a control message that the stream holds.
type Held struct {
	// Control is nil where the message cannot be read.
	Control *usherv1.Control
	// At is when it was stored, from which its age counts; Sequence its place in the stream.
	At       time.Time
	Sequence uint64
}

// PublishDirective stores a ban or an override, or its revocation, in the control stream and so
// tells it to all edges and workers. It never replaces a revocation by an older state, whoever publishes
// at the same time: the error is ErrRevoked then. Publishing again what is there is no error, and makes
// it younger unless it was published within the last minutes. Other errors are PublishControl's.
func (c *Conn) PublishDirective(ctx context.Context, m *usherv1.Control) error {
	return c.putDirective(ctx, m, c.lastOf)
}

// RestateDirective is PublishDirective for one of many, of which ReadDirectives has told what the stream
// holds: the zero Held for nothing. If that has changed since, it is looked up again.
func (c *Conn) RestateDirective(ctx context.Context, m *usherv1.Control, held Held) error {
	first := true
	return c.putDirective(ctx, m, func(ctx context.Context, subject string) (*Held, error) {
		if first {
			first = false
			return &held, nil
		}
		return c.lastOf(ctx, subject)
	})
}

// putDirective compares with what stands there and sets, again until nobody came between.
func (c *Conn) putDirective(ctx context.Context, m *usherv1.Control, last func(context.Context, string) (*Held, error)) error {
	if err := names.CheckToken("control kind", m.GetKind()); err != nil {
		return err
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("directive: %w: %w", ErrMalformed, err)
	}
	key := controlKey(m)
	subject, id := names.Control(m.GetKind(), key), m.GetKind()+"."+key+"."+strconv.FormatInt(m.GetAtUnixMs(), 10)
	var b backoff
	for range casAttempts {
		held, err := last(ctx, subject)
		if err != nil {
			return err
		}
		if held.Control.GetDirective().GetRevoked() && !m.GetDirective().GetRevoked() {
			return ErrRevoked
		}
		_, err = c.publish(ctx, telemetry.SpanSendControl, subject, names.ControlStream, id, data,
			jetstream.WithExpectLastSequencePerSubject(held.Sequence))
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
			return err
		}
		if !b.wait(ctx) {
			return requestError(ctx, ctx.Err())
		}
	}
	return errors.New("too many others publish the same directive")
}

// lastOf is what the control stream holds of a subject: the zero Held for nothing.
func (c *Conn) lastOf(ctx context.Context, subject string) (*Held, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	st, err := c.hub.Stream(ctx, names.ControlStream)
	if err != nil {
		return nil, fmt.Errorf("control stream: %w", publishError(ctx, err))
	}
	msg, err := st.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return &Held{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the control stream: %w", publishError(ctx, err))
	}
	return heldOf(msg.Data, msg.Sequence, msg.Time), nil
}

func heldOf(data []byte, seq uint64, at time.Time) *Held {
	h := &Held{Sequence: seq, At: at}
	if m := new(usherv1.Control); proto.Unmarshal(data, m) == nil {
		h.Control = m
	}
	return h
}

// ControlIncarnation is when the control stream was made, in UTC and whole microseconds: another one
// holds nothing of what was published before. The error is ErrNoStream where there is none.
func (c *Conn) ControlIncarnation(ctx context.Context) (time.Time, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	st, err := c.hub.Stream(ctx, names.ControlStream)
	if err != nil {
		return time.Time{}, fmt.Errorf("control stream: %w", publishError(ctx, err))
	}
	return incarnationOf(st.CachedInfo()), nil
}

// ReadDirectives gives f what the control stream holds now of one kind, each directive once.
func (c *Conn) ReadDirectives(ctx context.Context, kind string, f func(Held)) error {
	if err := names.CheckToken("control kind", kind); err != nil {
		return err
	}
	lastPerSubject := func(context.Context, jetstream.Stream) (uint64, error) { return 0, nil }
	t, err := c.openTail(ctx, opening{js: c.hub, stream: names.ControlStream, filter: names.Control(kind, "*"), batch: controlBatch, start: lastPerSubject})
	if err != nil {
		return fmt.Errorf("reading the control stream: %w", err)
	}
	defer t.close()
	for left := t.pending; left > 0; left-- {
		e, ok := <-t.out
		if !ok {
			return fmt.Errorf("reading the control stream: %w", t.err)
		}
		meta, err := e.Metadata()
		if err != nil {
			return fmt.Errorf("reading the control stream: %w", err)
		}
		f(*heldOf(e.Data(), e.seq, meta.Timestamp))
		if e.pending == 0 {
			break // some were replaced while we read
		}
	}
	return nil
}
