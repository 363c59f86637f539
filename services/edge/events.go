package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/caller"
)

const (
	// maxEvents is the longest body of events; they are read one by one.
	maxEvents = 16 << 20
	// eventsWait is how long events wait for the first policy.
	eventsWait = 2 * time.Second
	// clockOff is what remains of a difference between two clocks: an end may look older than the
	// last sign of life by so much. It is granted to ids that never come again.
	clockOff = 3 * time.Second
)

// serveEvents takes in what a node tells of its sessions. 200 is said once all of it is kept here; a
// server sends again what it was answered otherwise, so that 503 is said where there is no room, and
// what cannot be understood is counted and passed over, for it will never be better.
func (s *Service) serveEvents(w http.ResponseWriter, r *http.Request, a caller.Reporter, name string, q *question) {
	ctx := r.Context()
	peer := peerOf(r.RemoteAddr)
	q.Node = access.Clean(name, access.MaxName)
	w.Header().Set("Cache-Control", "no-store")
	if q.view = s.waitView(q.asked.Add(eventsWait)); q.view == nil || s.crowded() {
		s.metrics.told(a, "busy", 1)
		w.Header().Set("Retry-After", "5")
		caller.Empty(w, http.StatusServiceUnavailable)
		return
	}
	n, reason, text := s.node(q.view, a, name, peer)
	if n == nil {
		d := s.refuse(ctx, q, peer, reason, access.Step{Name: "node", Result: string(reason), Text: text})
		s.metrics.told(a, "refused", 1)
		caller.Common(w.Header(), &d)
		caller.Empty(w, http.StatusForbidden)
		return
	}
	if status := unfit(r); status != 0 {
		s.metrics.told(a, "refused", 1)
		caller.Empty(w, status)
		return
	}
	c := eventCount{}
	r.Body = http.MaxBytesReader(w, r.Body, maxEvents)
	err := a.Events(r, n, func(e *caller.Event, ok bool) { c.add(s.event(ctx, n, e, ok)) })
	s.metrics.told(a, "taken", c.taken)
	s.metrics.told(a, "ignored", c.ignored)
	s.metrics.told(a, "bad", c.bad)
	s.traceEvents(ctx, q, c)
	if err != nil {
		s.unread(ctx, w, a, n, err)
		return
	}
	caller.Empty(w, http.StatusOK)
}

// unread answers a delivery that could not be read to its end.
func (s *Service) unread(ctx context.Context, w http.ResponseWriter, a caller.Reporter, n *caller.Node, err error) {
	status, result := http.StatusServiceUnavailable, "busy" // the connection broke
	if _, bad := errors.AsType[*caller.Bad](err); bad {
		status, result = http.StatusBadRequest, "refused"
	} else if _, long := errors.AsType[*http.MaxBytesError](err); long {
		status, result = http.StatusRequestEntityTooLarge, "refused"
	}
	s.metrics.told(a, result, 1)
	s.log.DebugContext(ctx, "events could not be read", slog.String(telemetry.Node, n.Name), slog.Any(telemetry.Error, err))
	w.Header().Set("X-Usher-Reason", string(access.BadRequest))
	caller.Empty(w, status)
}

// unfit is the status for a request that cannot bring events, 0 if it can.
func unfit(r *http.Request) int {
	switch encoding := r.Header.Get("Content-Encoding"); {
	case r.Method != http.MethodPost && r.Method != http.MethodPut:
		return http.StatusMethodNotAllowed
	case encoding != "" && encoding != "identity":
		return http.StatusUnsupportedMediaType
	}
	return 0
}

// crowded says that what is already kept waits for workers, or for the journal, in such numbers that
// more would soon be dropped. Nodes keep their events better.
func (s *Service) crowded() bool {
	return s.closings.waiting() > maxCloses/2 || s.journal.waiting.Load() > lanes*laneDepth/2
}

type eventCount struct{ taken, ignored, bad int }

func (c *eventCount) add(taken, bad bool) {
	switch {
	case bad:
		c.bad++
	case taken:
		c.taken++
	default:
		c.ignored++
	}
}

// event takes in one event.
func (s *Service) event(ctx context.Context, n *caller.Node, e *caller.Event, ok bool) (taken, bad bool) {
	if !ok {
		return false, true
	}
	if e.Kind == caller.Other {
		return false, false
	}
	r := report{
		node: n, id: e.Session, stream: e.Stream, token: e.Token, user: e.User, userAgent: e.UserAgent, ip: e.IP,
		opened: e.Opened, ended: e.Kind == caller.Ended, reason: e.Reason,
		bytes: e.Bytes, playing: e.Playing, country: e.Country,
	}
	now := s.now()
	r.at = now
	if r.once() && r.ended {
		r.late = clockOff
	}
	if !e.At.IsZero() {
		off := s.clocks.offset(n.Name, time.Until(e.At), now)
		ahead := max(off, 0)
		r.at = now.add(-max(time.Since(e.At)+ahead, 0))
		if !e.Opened.IsZero() {
			r.opened = e.Opened.Add(-ahead)
		}
		if r.late > 0 {
			r.late += ahead - off // behind is perhaps only late: believed where it can do no harm
		}
	}
	if e.Kind == caller.Opened && s.table.get(s.keyer.Key("caller session", n.Name, e.Session)) == nil {
		// Nobody was asked yet, or he was refused: this is no playing without having asked.
		s.metrics.reported(&r, "opened")
		return true, false
	}
	s.heard(ctx, r)
	return true, false
}

// traceEvents makes a span, in a trace that the node samples.
func (s *Service) traceEvents(ctx context.Context, q *question, c eventCount) {
	if q.parent == "" {
		return
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": q.parent})
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	_, span := s.tracer.Start(ctx, telemetry.SpanEvents, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(q.asked))
	span.SetAttributes(
		attribute.String("http.route", "/v1/{caller}/{node}/events"),
		attribute.String(telemetry.Caller, q.Caller), attribute.String(telemetry.Node, q.Node),
		attribute.Int(telemetry.Count, c.taken), attribute.Int(telemetry.Bad, c.bad),
	)
	span.End()
}

// told counts events by what came of them.
func (m *metrics) told(a caller.Adapter, result string, n int) {
	if n > 0 {
		m.events.WithLabelValues(a.Kind(), result).Add(float64(n))
	}
}
