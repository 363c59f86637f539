package bus

import (
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
)

// Carrier carries trace context in NATS headers. nats.Header is case-sensitive, and
// OpenTelemetry's own HeaderCarrier writes "Traceparent" but doesn't read
// "traceparent": two services with different carriers cut the trace silently.
type Carrier nats.Header

var _ propagation.TextMapCarrier = Carrier{}

// Get returns the header in whatever case it was written, "" if there is none.
func (c Carrier) Get(key string) string {
	if v := nats.Header(c).Get(key); v != "" {
		return v
	}
	for h, v := range c {
		if len(v) > 0 && strings.EqualFold(h, key) {
			return v[0]
		}
	}
	return ""
}

// Set writes the header in lower case, as nats-server's own tracing reads it.
func (c Carrier) Set(key, value string) { nats.Header(c).Set(strings.ToLower(key), value) }

// Keys are the names of all headers.
func (c Carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }
