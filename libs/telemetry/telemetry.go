// Package telemetry gives a process its logger, tracer and metrics registry, and
// holds their names (names.go). Everything is handed on, nothing is global.
//
// Logs are JSON on standard error with trace_id and span_id. Traces follow the
// standard OTEL_* variables; where they name no exporter nothing leaves the process,
// but every request still has a valid trace id. Metrics are Prometheus's.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// LevelEnv is the environment variable with the log level: debug, info, warn or error.
const LevelEnv = "USHER_LOG_LEVEL"

// Telemetry is what a service gets. Its methods may be called from any goroutine.
type Telemetry struct {
	// Log writes JSON lines; give it the request's ctx so that they carry its trace.
	Log *slog.Logger
	// Level of Log, may be changed while running.
	Level *slog.LevelVar
	// Registry is what /metrics shows.
	Registry *prometheus.Registry

	provider trace.TracerProvider
	stop     func(context.Context) error
}

// Start reads USHER_LOG_LEVEL and OTEL_* and starts what they ask for. It silences the standard
// logger of the process. The error
// names the variable that could not be used.
func Start(ctx context.Context, service, version string) (*Telemetry, error) {
	level := new(slog.LevelVar)
	if text := os.Getenv(LevelEnv); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", LevelEnv, err)
		}
	}
	provider, err := newProvider(ctx, service, version)
	if err != nil {
		return nil, err
	}
	t := assemble(os.Stderr, level, provider)
	t.Log = t.Log.With(slog.String(Service, service))
	t.stop = provider.Shutdown
	// A collector that is away would otherwise be told on standard error as plain text.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		t.Log.Warn("opentelemetry", slog.Any(Error, err))
	}))
	// net/http prints what a backend sent out of turn on the standard logger, with its bytes; so
	// might others. Nothing of ours writes there.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	return t, nil
}

// StartWith is for tests: spans go to provider (nil: valid ids, nothing recorded),
// logs are dropped, and no variable is read.
func StartWith(provider trace.TracerProvider) *Telemetry {
	if provider == nil {
		provider = sdktrace.NewTracerProvider(sdktrace.WithSampler(silent()))
	}
	return assemble(io.Discard, new(slog.LevelVar), provider)
}

// Tracer makes spans under a name, by habit the package's path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return quiet{t.provider.Tracer(name)} }

// TracerProvider is for instrumentation that wants one, such as otelhttp.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.provider }

// Stop exports what is left, within ctx. It may be called more than once.
func (t *Telemetry) Stop(ctx context.Context) error {
	if t.stop == nil {
		return nil
	}
	if err := t.stop(ctx); err != nil {
		return fmt.Errorf("stopping traces: %w", err)
	}
	return nil
}

func assemble(logs io.Writer, level *slog.LevelVar, provider trace.TracerProvider) *Telemetry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return &Telemetry{
		Log:      slog.New(NewHandler(logs, level)),
		Level:    level,
		Registry: reg,
		provider: provider,
	}
}

func newProvider(ctx context.Context, service, version string) (*sdktrace.TracerProvider, error) {
	// The environment comes last, so that OTEL_SERVICE_NAME wins over our own word.
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", service),
			attribute.String("service.version", version),
		),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if !exporting() {
		return sdktrace.NewTracerProvider(append(opts, sdktrace.WithSampler(silent()))...), nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %w", err)
	}
	// The sampler is the SDK's own reading of OTEL_TRACES_SAMPLER.
	return sdktrace.NewTracerProvider(append(opts, sdktrace.WithBatcher(exporter))...), nil
}

// silent samples nothing of its own but hands on a caller's sampled flag, so that a
// process without an exporter doesn't cut the trace of those that have one.
func silent() sdktrace.Sampler { return sdktrace.ParentBased(sdktrace.NeverSample()) }

// quiet makes no span below one that nobody samples: the trace's id is what such a trace is
// for, and a question has half a dozen spans.
type quiet struct{ trace.Tracer }

// Start implements trace.Tracer.
func (q quiet) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if parent := trace.SpanContextFromContext(ctx); parent.IsValid() && !parent.IsSampled() {
		return ctx, trace.SpanFromContext(ctx)
	}
	return q.Tracer.Start(ctx, name, opts...)
}

// exporting says whether the environment asks for traces. autoexport alone would
// export to localhost when nothing is set at all.
func exporting() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	if e := os.Getenv("OTEL_TRACES_EXPORTER"); e != "" {
		return e != "none"
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, "OTEL_EXPORTER_OTLP_")
		if ours && value != "" && !strings.HasPrefix(rest, "METRICS_") && !strings.HasPrefix(rest, "LOGS_") {
			return true
		}
	}
	return false
}
