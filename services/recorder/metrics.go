package recorder

import (
	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/telemetry"
)

// metrics of a recorder. Their names and labels stand in telemetry/names.go.
type metrics struct {
	rows         *prometheus.CounterVec
	batchSeconds *prometheus.HistogramVec
	lagSeconds   *prometheus.GaugeVec
	expired      *prometheus.CounterVec
	soft         *prometheus.CounterVec
	gap          *prometheus.CounterVec
	outbox       *prometheus.GaugeVec
	control      *prometheus.CounterVec
	faults       *prometheus.CounterVec
	disk         *prometheus.GaugeVec
	early        *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		rows:         telemetry.NewCounter(reg, telemetry.RecorderRows()),
		batchSeconds: telemetry.NewHistogram(reg, telemetry.RecorderBatchSeconds()),
		lagSeconds:   telemetry.NewGauge(reg, telemetry.RecorderLagSeconds()),
		expired:      telemetry.NewCounter(reg, telemetry.RecorderSwept()),
		soft:         telemetry.NewCounter(reg, telemetry.RecorderSoft()),
		gap:          telemetry.NewCounter(reg, telemetry.RecorderGapSeconds()),
		outbox:       telemetry.NewGauge(reg, telemetry.RecorderOutbox()),
		control:      telemetry.NewCounter(reg, telemetry.RecorderControl()),
		faults:       telemetry.NewCounter(reg, telemetry.RecorderFaults()),
		disk:         telemetry.NewGauge(reg, telemetry.RecorderDiskUsed()),
		early:        telemetry.NewCounter(reg, telemetry.RecorderDroppedEarly()),
	}
}
