package bus

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// AuthHandler decides one question. edge is the edge that asks, as NATS's permissions
// enforce it; the name inside req is worth nothing. ctx ends early enough for the
// answer to arrive in time, and is not ended by a graceful stop.
type AuthHandler func(ctx context.Context, edge string, req *usherv1.AuthRequest) *usherv1.AuthReply

// SeatsHandler takes renewals and closes of one edge. edge and ctx are as in AuthHandler.
type SeatsHandler func(ctx context.Context, edge string, req *usherv1.SeatsRequest) *usherv1.SeatsReply

// ServeAuth answers the questions of a region, together with its other workers, until
// ctx ends. At most workers handlers run at once and queue questions wait for them;
// the rest is answered STATUS_BUSY at once, what cannot end in time STATUS_LATE, and
// what the handler cannot read or panics at STATUS_INTERNAL. When ctx ends, no new
// question is taken, everything taken is answered, the answers are flushed, and nil
// is returned.
func (c *Conn) ServeAuth(ctx context.Context, region string, workers, queue int, h AuthHandler) error {
	refuse := func(status usherv1.AuthReply_Status) proto.Message {
		return &usherv1.AuthReply{Status: status, WorkerUnixMs: time.Now().UnixMilli()}
	}
	handle := func(ctx context.Context, edge string, data []byte) (proto.Message, error) {
		req := new(usherv1.AuthRequest)
		if err := proto.Unmarshal(data, req); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		reply := h(ctx, edge, req)
		if reply == nil {
			return refuse(usherv1.AuthReply_STATUS_INTERNAL), nil
		}
		return reply, nil
	}
	return c.serve(ctx, region, workers, queue, service{route: authRoute(), handle: handle, refuse: refuse})
}

// ServeSeats takes the renewals and closes of a region, as ServeAuth takes questions.
// Whatever is refused is answered without ok: the edge sends it again.
func (c *Conn) ServeSeats(ctx context.Context, region string, workers, queue int, h SeatsHandler) error {
	refuse := func(usherv1.AuthReply_Status) proto.Message { return &usherv1.SeatsReply{} }
	handle := func(ctx context.Context, edge string, data []byte) (proto.Message, error) {
		req := new(usherv1.SeatsRequest)
		if err := proto.Unmarshal(data, req); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		reply := h(ctx, edge, req)
		if reply == nil {
			return refuse(usherv1.AuthReply_STATUS_INTERNAL), nil
		}
		return reply, nil
	}
	return c.serve(ctx, region, workers, queue, service{route: seatsRoute(), handle: handle, refuse: refuse})
}

// PlaylistHandler writes one subscriber's playlist. edge and ctx are as in AuthHandler.
type PlaylistHandler func(ctx context.Context, edge string, req *usherv1.PlaylistRequest) *usherv1.PlaylistReply

// ServePlaylists answers requests for playlists of a region, as ServeAuth answers questions.
func (c *Conn) ServePlaylists(ctx context.Context, region string, workers, queue int, h PlaylistHandler) error {
	refuse := func(status usherv1.AuthReply_Status) proto.Message { return &usherv1.PlaylistReply{Status: status} }
	handle := func(ctx context.Context, edge string, data []byte) (proto.Message, error) {
		req := new(usherv1.PlaylistRequest)
		if err := proto.Unmarshal(data, req); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		reply := h(ctx, edge, req)
		if reply == nil {
			return refuse(usherv1.AuthReply_STATUS_INTERNAL), nil
		}
		return reply, nil
	}
	return c.serve(ctx, region, workers, queue, service{route: playlistRoute(), handle: handle, refuse: refuse})
}

// service is what differs between the kinds of requests that a worker answers.
type service struct {
	route
	// handle decodes, decides and returns the reply; the error wraps ErrMalformed.
	handle func(ctx context.Context, edge string, data []byte) (proto.Message, error)
	refuse func(usherv1.AuthReply_Status) proto.Message
}

// guarded is handle, with a panic turned into a refusal: one hostile question must
// not take the worker down with all the others that it works on.
func (s service) guarded(ctx context.Context, log *slog.Logger, edge string, data []byte) (reply proto.Message, result string) {
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "handler panicked",
				slog.String(telemetry.Kind, s.kind),
				slog.Any(telemetry.Panic, p),
				slog.String(telemetry.Stack, string(debug.Stack())))
			reply, result = s.refuse(usherv1.AuthReply_STATUS_INTERNAL), "panic"
		}
	}()
	reply, err := s.handle(ctx, edge, data)
	if err != nil {
		return s.refuse(usherv1.AuthReply_STATUS_INTERNAL), "malformed"
	}
	return reply, "handled"
}
