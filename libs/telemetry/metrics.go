package telemetry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric describes a metric: its name, its one sentence, and the labels that every
// series of it has. All of them are functions in names.go.
type Metric struct {
	Name, Help string
	// Labels never vary for a metric and never hold a stream, user, token or address.
	Labels []string
	// Buckets of a histogram, in its unit; nil for LatencyBuckets.
	Buckets []float64
}

// LatencyBuckets are the upper bounds, in seconds, of durations that a viewer waits for.
func LatencyBuckets() []float64 {
	return []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2.5, 5, 10}
}

// NewCounter makes a counter and registers it. A metric that is registered already
// is shared: `usher up` runs several workers over one registry. reg may be nil.
func NewCounter(reg prometheus.Registerer, m Metric) *prometheus.CounterVec {
	return register(reg, prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels))
}

// NewGauge makes a gauge and registers it, as NewCounter does. Sharers must use Add.
func NewGauge(reg prometheus.Registerer, m Metric) *prometheus.GaugeVec {
	return register(reg, prometheus.NewGaugeVec(
		prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels))
}

// NewGaugeFunc makes a gauge without labels that is asked for its value, and registers it, as
// NewCounter does: of those that share a name the first is asked.
func NewGaugeFunc(reg prometheus.Registerer, m Metric, value func() float64) {
	_ = register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, value))
}

// NewHistogram makes a histogram and registers it, as NewCounter does.
func NewHistogram(reg prometheus.Registerer, m Metric) *prometheus.HistogramVec {
	buckets := m.Buckets
	if buckets == nil {
		buckets = LatencyBuckets()
	}
	return register(reg, prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: buckets}, m.Labels))
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	var twice prometheus.AlreadyRegisteredError
	if errors.As(err, &twice) {
		if same, ok := twice.ExistingCollector.(C); ok {
			return same
		}
	}
	// One name with two label sets or kinds: a programmer's mistake, seen at start.
	panic(err)
}
