package bus

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	names "usher.internal/schemas/nats"
)

const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestCarrierReadsEverySpellingAndWritesLowerCase(t *testing.T) {
	t.Parallel()
	for _, spelling := range []string{"traceparent", "Traceparent", "TRACEPARENT", "TraceParent"} {
		ctx := propagation.TraceContext{}.Extract(context.Background(), Carrier{spelling: {sampled}})
		if got := trace.SpanContextFromContext(ctx).TraceID().String(); got != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("%s: trace = %s", spelling, got)
		}
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 3})
	c := Carrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), c)
	if !slices.Contains(c.Keys(), names.TraceparentHeader) {
		t.Errorf("headers = %v, want %s", c, names.TraceparentHeader)
	}
	if (Carrier{"x": {}}).Get("X") != "" {
		t.Error("a header without values has one")
	}
}

func FuzzBudget(f *testing.F) {
	for _, s := range []string{"", "0", "19", "800", "-1", "1e3", " 5", "99999999999999999999", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := budget(nats.Header{names.DeadlineHeader: {text}})
		if d < 0 || d > maxDeadline {
			t.Errorf("budget(%q) = %v", text, d)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(names.Journal("eu", "e17", "decision"), []byte{0x0a, 1, 'x', 0x1a, 0})
	f.Add("", []byte(nil))
	f.Add("usher.v1.journal.eu..", []byte("\xff"))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		e := decodeEntry(7, subject, data)
		if (e.Entry == nil) == (e.Bad == nil) || e.Seq != 7 {
			t.Errorf("decodeEntry(%q, %q) = %+v, want an entry or a fault", subject, data, e)
		}
		if strings.Contains(e.Edge, ".") {
			t.Errorf("edge %q of subject %q", e.Edge, subject)
		}
	})
}

func TestSeldomLetsOneOfManyThrough(t *testing.T) {
	t.Parallel()
	var s seldom
	n := 0
	for range 100 {
		if s.allow() {
			n++
		}
	}
	s.last.Store(time.Now().Add(-2 * seldomEvery).UnixNano())
	if !s.allow() || n != 1 {
		t.Errorf("%d of 100 at once, then again %v", n, s.allow())
	}
}
