package upstream

import (
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"usher.internal/libs/access"
)

// askTraced asks a backend that keeps the header it was sent, and returns both.
func askTraced(t *testing.T, traceparent bool, status int) (nethttp.Header, tracetest.SpanStubs) {
	t.Helper()
	var header nethttp.Header
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		header = r.Header
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(t.Context()) })
	o := Defaults()
	o.Traceparent = traceparent
	m := New("test", plain{s.URL + "/check?key=OPERATORSKEY"}, &o, Deps{Tracer: provider.Tracer("test"), Now: time.Now})
	t.Cleanup(m.Close)
	_, _ = m.Ask(t.Context(), &access.Request{Query: "token=VIEWERSTOKEN"})
	return header, exporter.GetSpans()
}

func TestSpanHoldsNoQuery(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 403, 500} {
		_, spans := askTraced(t, false, status)
		if len(spans) != 1 {
			t.Fatalf("%d spans, want 1", len(spans))
		}
		all := fmt.Sprint(spans[0].Name, spans[0].Attributes, spans[0].Events, spans[0].Status)
		if strings.Contains(all, "OPERATORSKEY") || strings.Contains(all, "VIEWERSTOKEN") {
			t.Errorf("the span holds a query: %s", all)
		}
		if !strings.Contains(all, fmt.Sprint(status)) {
			t.Errorf("the span of a %d does not say so: %s", status, all)
		}
	}
}

func TestTraceparentGoesOutOnlyIfAskedFor(t *testing.T) {
	t.Parallel()
	if h, _ := askTraced(t, false, 200); h.Get("Traceparent") != "" {
		t.Errorf("sent traceparent %q unasked", h.Get("Traceparent"))
	}
	h, spans := askTraced(t, true, 200)
	if id := spans[0].SpanContext.SpanID().String(); !strings.Contains(h.Get("Traceparent"), id) {
		t.Errorf("sent traceparent %q, want span %s in it", h.Get("Traceparent"), id)
	}
}
