package edge

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
)

// startSpan begins the span of a question that is put to a worker, as part of the
// caller's own trace if it has one. There is a trace id also where nothing is exported.
func (s *Service) startSpan(ctx context.Context, q *question) (context.Context, trace.Span) {
	if q.parent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": q.parent})
	}
	ctx, span := s.tracer.Start(ctx, spanName(q.method),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(q.asked))
	q.trace = span.SpanContext().TraceID()
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.route", "/v1/{caller}/{node}"),
			attribute.String(telemetry.Caller, q.Caller),
			attribute.String(telemetry.Node, q.Node),
		)
	}
	return ctx, span
}

func endSpan(span trace.Span, d *access.Decision) {
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String(telemetry.Outcome, string(d.Outcome)),
			attribute.String(telemetry.Reason, string(d.Reason)),
		)
	}
}

// remember makes a span for an answer from memory, but only in a trace that the caller
// samples: there is one such answer for each segment.
func (s *Service) remember(ctx context.Context, q *question, d *access.Decision) {
	if q.parent == "" {
		return
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": q.parent})
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	_, span := s.startSpan(ctx, q)
	span.SetAttributes(attribute.Bool(telemetry.Memory, true))
	endSpan(span, d)
	span.End()
}

// spanName has no outside text in it: a viewer could otherwise make any number of names.
func spanName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions:
		return method + telemetry.SpanQuestion
	}
	return "HTTP" + telemetry.SpanQuestion
}
