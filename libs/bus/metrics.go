package bus

import (
	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/telemetry"
)

// metrics of one connection; every process has one, so the gauge needs no labels.
type metrics struct {
	requests  *prometheus.CounterVec
	request   *prometheus.HistogramVec
	served    *prometheus.CounterVec
	queue     *prometheus.HistogramVec
	connected prometheus.Gauge
	faults    *prometheus.CounterVec
	restarts  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		requests:  telemetry.NewCounter(reg, telemetry.BusRequests()),
		request:   telemetry.NewHistogram(reg, telemetry.BusRequestSeconds()),
		served:    telemetry.NewCounter(reg, telemetry.BusServed()),
		queue:     telemetry.NewHistogram(reg, telemetry.BusQueueSeconds()),
		connected: telemetry.NewGauge(reg, telemetry.BusConnected()).WithLabelValues(),
		faults:    telemetry.NewCounter(reg, telemetry.BusFaults()),
		restarts:  telemetry.NewCounter(reg, telemetry.BusFollowerRestarts()),
	}
}
