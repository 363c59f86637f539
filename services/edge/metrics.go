package edge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
)

// metrics are the edge's own; what goes over NATS is counted by package bus.
type metrics struct {
	answers   *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	memory    *prometheus.CounterVec
	asks      *prometheus.CounterVec
	failures  *prometheus.CounterVec
	crashes   *prometheus.CounterVec
	playlists *prometheus.CounterVec
	reports   *prometheus.CounterVec
	events    *prometheus.CounterVec
	sessions  *prometheus.GaugeVec
	lag       *prometheus.GaugeVec
	unsent    *prometheus.GaugeVec
	backlog   *prometheus.GaugeVec
	lost      *prometheus.CounterVec
	keeping   *prometheus.GaugeVec
	cut       *prometheus.GaugeVec
	revision  *prometheus.GaugeVec
	polls     *prometheus.CounterVec
	kicks     *prometheus.CounterVec
	reauths   *prometheus.CounterVec
	unasked   *prometheus.GaugeVec
	control   *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		answers:   telemetry.NewCounter(reg, telemetry.EdgeAnswers()),
		seconds:   telemetry.NewHistogram(reg, telemetry.EdgeAnswerSeconds()),
		memory:    telemetry.NewCounter(reg, telemetry.EdgeMemoryAnswers()),
		asks:      telemetry.NewCounter(reg, telemetry.EdgeQuestions()),
		failures:  telemetry.NewCounter(reg, telemetry.EdgeFailModes()),
		crashes:   telemetry.NewCounter(reg, telemetry.EdgePanics()),
		playlists: telemetry.NewCounter(reg, telemetry.EdgePlaylists()),
		reports:   telemetry.NewCounter(reg, telemetry.EdgeReports()),
		events:    telemetry.NewCounter(reg, telemetry.EdgeEvents()),
		sessions:  telemetry.NewGauge(reg, telemetry.EdgeSessions()),
		lag:       telemetry.NewGauge(reg, telemetry.EdgeSeatsLagSeconds()),
		unsent:    telemetry.NewGauge(reg, telemetry.EdgeSeatsWaiting()),
		backlog:   telemetry.NewGauge(reg, telemetry.EdgeJournalBacklog()),
		lost:      telemetry.NewCounter(reg, telemetry.EdgeLost()),
		keeping:   telemetry.NewGauge(reg, telemetry.EdgeStateFailing()),
		cut:       telemetry.NewGauge(reg, telemetry.EdgeCutOff()),
		revision:  telemetry.NewGauge(reg, telemetry.EdgePolicyRevision()),
		polls:     telemetry.NewCounter(reg, telemetry.EdgePolls()),
		kicks:     telemetry.NewCounter(reg, telemetry.EdgeKicks()),
		reauths:   telemetry.NewCounter(reg, telemetry.EdgeReauths()),
		unasked:   telemetry.NewGauge(reg, telemetry.EdgeUnaskedSessions()),
		control:   telemetry.NewGauge(reg, telemetry.EdgeControlState()),
	}
}

// answered counts one answer to a caller.
func (m *metrics) answered(q *question, d *access.Decision, took time.Duration) {
	m.answers.WithLabelValues(q.Caller, string(d.Outcome), string(d.Reason)).Inc()
	m.seconds.WithLabelValues(q.Caller).Observe(took.Seconds())
	if q.memory {
		m.memory.WithLabelValues(q.Caller).Inc()
	}
}

// asked counts one question that was put to workers.
func (m *metrics) asked(err error) {
	result := "decided"
	if err != nil {
		result = "failed"
	}
	m.asks.WithLabelValues(result).Inc()
}

// failed counts one question that the fail mode decided.
func (m *metrics) failed(mode access.FailMode, o access.Outcome) {
	m.failures.WithLabelValues(string(mode), string(o)).Inc()
}

// swept shows the state after a round of the sweeper.
func (m *metrics) swept(w *sweeper, now instant) {
	s := w.s
	m.sessions.WithLabelValues().Set(float64(s.table.count.Load()))
	m.unsent.WithLabelValues().Set(float64(len(w.closes)))
	m.backlog.WithLabelValues().Set(float64(s.journal.waiting.Load()))
	total := [...]int64{s.journal.dropped.Load(), w.lost, s.tallies.missed()}
	for i, kind := range [...]string{"journal", "close", "repeat"} {
		m.lost.WithLabelValues(kind).Add(float64(total[i] - w.shown[i]))
	}
	w.shown = total
	lag, cut := 0.0, 0.0
	if w.behind != 0 {
		lag = now.since(w.behind).Seconds()
	}
	if s.cutOff() {
		cut = 1
	}
	m.lag.WithLabelValues().Set(lag)
	m.cut.WithLabelValues().Set(cut)
}

// keepFault says whether the file beside the edge can be written.
func (m *metrics) keepFault(failing bool) {
	v := 0.0
	if failing {
		v = 1
	}
	m.keeping.WithLabelValues().Set(v)
}
