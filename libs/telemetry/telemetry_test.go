package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log" //nolint:depguard // the standard logger is what is tested
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/telemetry"
)

// quiet removes every variable that could start an export. Tests that use it cannot
// run in parallel: the environment belongs to the process.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME",
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", telemetry.LevelEnv,
	} {
		t.Setenv(name, "")
	}
}

// collector counts what is exported to it.
func collector(t *testing.T) (url string, got chan []byte) {
	t.Helper()
	got = make(chan []byte, 16)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading export: %v", err)
		}
		got <- body
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func start(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Start(context.Background(), "edge", "v1")
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return tel
}

func stop(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for range 2 {
		if err := tel.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
}

func TestWithoutExporterIDsAreValidAndNothingIsRecorded(t *testing.T) {
	quiet(t)
	for _, env := range []map[string]string{
		nil,
		{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1:4318"},
		{"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
		{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://192.0.2.1:4318"},
	} {
		t.Run(strings.Join(keys(env), ","), func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			tel := start(t)
			defer stop(t, tel)
			_, span := tel.Tracer("t").Start(context.Background(), "x")
			defer span.End()
			if !span.SpanContext().IsValid() || span.IsRecording() || span.SpanContext().IsSampled() {
				t.Errorf("span = %+v recording %v, want valid ids and nothing more", span.SpanContext(), span.IsRecording())
			}
		})
	}
}

func keys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func TestACallersSampledTraceStaysSampledWithoutExporter(t *testing.T) {
	t.Parallel()
	parent := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := telemetry.StartWith(nil).Tracer("t").Start(ctx, "x")
	defer span.End()
	if sc := span.SpanContext(); sc.TraceID() != parent.TraceID() || !sc.IsSampled() {
		t.Errorf("span = %+v, want the caller's trace, sampled", sc)
	}
}

func TestTheEnvironmentStartsTheExport(t *testing.T) {
	quiet(t)
	url, got := collector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	tel := start(t)
	_, span := tel.Tracer("t").Start(context.Background(), "hello span")
	span.End()
	stop(t, tel)
	select {
	case body := <-got:
		for _, want := range []string{"hello span", "service.name", "edge", "v1"} {
			if !bytes.Contains(body, []byte(want)) {
				t.Errorf("export lacks %q", want)
			}
		}
	default:
		t.Error("nothing was exported")
	}
}

func TestTheEnvironmentsSamplerAndNameCount(t *testing.T) {
	quiet(t)
	url, got := collector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	t.Setenv("OTEL_SERVICE_NAME", "edge-of-the-world")
	t.Run("always_off", func(t *testing.T) {
		t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
		tel := start(t)
		_, span := tel.Tracer("t").Start(context.Background(), "x")
		span.End()
		stop(t, tel)
		if len(got) != 0 || !span.SpanContext().IsValid() {
			t.Errorf("%d exports, span %+v", len(got), span.SpanContext())
		}
	})
	t.Run("always_on", func(t *testing.T) {
		t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
		tel := start(t)
		_, span := tel.Tracer("t").Start(context.Background(), "x")
		span.End()
		stop(t, tel)
		if body := <-got; !bytes.Contains(body, []byte("edge-of-the-world")) {
			t.Error("OTEL_SERVICE_NAME was overruled")
		}
	})
}

func TestBadVariablesAreNamed(t *testing.T) {
	quiet(t)
	for name, value := range map[string]string{"OTEL_TRACES_EXPORTER": "pigeon", telemetry.LevelEnv: "loud"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if _, err := telemetry.Start(context.Background(), "edge", "v1"); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Start = %v, want an error that names %s", err, name)
			}
		})
	}
	t.Setenv(telemetry.LevelEnv, "debug")
	if tel := start(t); tel.Level.Level() != slog.LevelDebug {
		t.Errorf("level = %v, want debug", tel.Level.Level())
	}
}

func TestLinesCarryTheTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(telemetry.NewHandler(&out, slog.LevelInfo)).With(slog.String(telemetry.Edge, "e1"))
	ctx, span := telemetry.StartWith(nil).Tracer("t").Start(context.Background(), "x")
	defer span.End()
	log.DebugContext(ctx, "too quiet")
	log.InfoContext(ctx, "with")
	log.Info("without")
	dec := json.NewDecoder(&out)
	var with, without map[string]any
	if err := dec.Decode(&with); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(&without); err != nil {
		t.Fatal(err)
	}
	if with[telemetry.TraceID] != span.SpanContext().TraceID().String() ||
		with[telemetry.SpanID] != span.SpanContext().SpanID().String() || with[telemetry.Edge] != "e1" {
		t.Errorf("line = %v", with)
	}
	if _, ok := without[telemetry.TraceID]; ok || without["msg"] != "without" {
		t.Errorf("line = %v", without)
	}
}

func TestMetricsAreSharedByName(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	for range 2 {
		telemetry.NewCounter(reg, telemetry.BusServed()).WithLabelValues("auth", "busy").Inc()
		telemetry.NewHistogram(reg, telemetry.BusQueueSeconds()).WithLabelValues("auth").Observe(.003)
		telemetry.NewGauge(reg, telemetry.BusConnected()).WithLabelValues().Set(1)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 3 {
		t.Fatalf("Gather = %v, %v, want three families", families, err)
	}
	for _, f := range families {
		if f.GetName() == "usher_bus_served_total" && f.GetMetric()[0].GetCounter().GetValue() != 2 {
			t.Errorf("counter = %v, want both counted in one", f)
		}
	}
	telemetry.NewCounter(nil, telemetry.BusServed()).WithLabelValues("auth", "busy").Inc()
}

func TestOneNameWithTwoLabelSetsIsAMistake(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	telemetry.NewCounter(reg, telemetry.BusServed())
	defer func() {
		if recover() == nil {
			t.Error("it was taken")
		}
	}()
	m := telemetry.BusServed()
	m.Labels = nil
	telemetry.NewCounter(reg, m)
}

// What a library prints may hold what a backend sent, or a viewer.
func TestTheStandardLoggerIsSilent(t *testing.T) { //nolint:paralleltest // it looks at what the whole process writes to
	quiet(t)
	var printed bytes.Buffer
	log.SetOutput(&printed)
	tel, err := telemetry.Start(t.Context(), "test", "1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Stop(context.Background()) })
	log.Print("Unsolicited response received on idle HTTP channel")
	slog.Info("the same by the default logger")
	if printed.Len() > 0 {
		t.Errorf("the standard logger printed %q", &printed)
	}
}
