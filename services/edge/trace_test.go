package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
)

const (
	sampled   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

func TestSpans(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rec := tracetest.NewSpanRecorder()
	b.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec)).Tracer("test")
	ask := func(r *http.Request, parent string) {
		if parent != "" {
			r.Header.Set("traceparent", parent)
		}
		wantStatus(t, "traced", b.ask(r), http.StatusOK)
	}
	ask(astraRequest("token=hidden"), sampled) // asked
	ask(astraRequest("token=hidden"), sampled) // memory, sampled by the caller
	ask(astraRequest("token=hidden"), unsampled)
	ask(astraRequest("token=hidden"), "")
	spans := rec.Ended()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2", len(spans))
	}
	for i, s := range spans {
		if s.Name() != "GET /v1/{caller}/{node}" || s.SpanKind() != trace.SpanKindServer ||
			s.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("span %d = %s %s in trace %s", i, s.Name(), s.SpanKind(), s.SpanContext().TraceID())
		}
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.String(), "hidden") {
				t.Errorf("span %d holds the token in %s", i, a.Key)
			}
		}
	}
}

func TestSpanNamesHoldNoOutsideText(t *testing.T) {
	t.Parallel()
	if got := spanName("EVIL"); got != "HTTP /v1/{caller}/{node}" {
		t.Errorf("spanName = %q", got)
	}
}

func TestTheRowCarriesTheTrace(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) { return nil, bus.ErrNoWorker }
		b.ask(segment("/closed/a/i.m3u8?token=t"))
		b.report(t)
		if rows := b.journal.Rows(); len(rows) != 1 || len(rows[0].GetTraceId()) != 16 {
			t.Errorf("rows = %v, want one with a trace id, also where nothing is exported", rows)
		}
	})
}

func TestParseQuestion(t *testing.T) {
	t.Parallel()
	p := projection()
	r := httptest.NewRequest(http.MethodGet, "/v1/astra/n1/check?token=123", nil)
	r.Header, r.RemoteAddr = astraRequest("").Header, ""
	q, err := ParseQuestion(p.GetNodes()[0], r, testKeyer(t))
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t)
	b.ask(astraRequest("token=123"))
	m := b.workers.Asked()[0]
	if string(m.GetSessionKey()) != string(q.Key[:]) || m.GetDevice() != q.Device || m.GetStream() != q.Stream || m.GetToken() != q.Token {
		t.Errorf("ParseQuestion reads %+v, the edge asked %v", q, m)
	}
	r.RemoteAddr = "192.0.2.1:1"
	if _, err := ParseQuestion(p.GetNodes()[0], r, testKeyer(t)); err == nil {
		t.Error("a question from elsewhere is read")
	}
	if _, err := ParseQuestion(&usherv1.NodeView{Caller: "wowza"}, r, testKeyer(t)); err == nil {
		t.Error("an unknown caller is read")
	}
}
