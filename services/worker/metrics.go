package worker

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// metrics of one worker. Their names and labels stand in telemetry/names.go.
type metrics struct {
	worker         string
	answers        *prometheus.CounterVec
	answerSeconds  *prometheus.HistogramVec
	checkSeconds   *prometheus.HistogramVec
	checkStates    *prometheus.GaugeVec
	commitSeconds  *prometheus.HistogramVec
	commitItems    *prometheus.HistogramVec
	seats          *prometheus.CounterVec
	uncounted      *prometheus.CounterVec
	control        *prometheus.CounterVec
	policyRejected *prometheus.CounterVec
	policy         *prometheus.GaugeVec
	blind          *prometheus.GaugeVec
	ruleFailures   *prometheus.CounterVec
	keys           *prometheus.GaugeVec
}

func newMetrics(worker string, reg prometheus.Registerer) *metrics {
	return &metrics{
		worker:         worker,
		answers:        telemetry.NewCounter(reg, telemetry.WorkerAnswers()),
		answerSeconds:  telemetry.NewHistogram(reg, telemetry.WorkerAnswerSeconds()),
		checkStates:    telemetry.NewGauge(reg, telemetry.WorkerCheckState()),
		checkSeconds:   telemetry.NewHistogram(reg, telemetry.WorkerCheckSeconds()),
		commitSeconds:  telemetry.NewHistogram(reg, telemetry.WorkerCommitSeconds()),
		commitItems:    telemetry.NewHistogram(reg, telemetry.WorkerCommitItems()),
		seats:          telemetry.NewCounter(reg, telemetry.WorkerSeats()),
		uncounted:      telemetry.NewCounter(reg, telemetry.WorkerUncounted()),
		control:        telemetry.NewCounter(reg, telemetry.WorkerControl()),
		policyRejected: telemetry.NewCounter(reg, telemetry.WorkerPolicyRejected()),
		policy:         telemetry.NewGauge(reg, telemetry.WorkerPolicyRevision()),
		blind:          telemetry.NewGauge(reg, telemetry.WorkerPolicyBlind()),
		ruleFailures:   telemetry.NewCounter(reg, telemetry.WorkerRuleFailures()),
		keys:           telemetry.NewGauge(reg, telemetry.WorkerKeysFetched()),
	}
}

// answered counts a reply: decisions by outcome and reason, the rest by its status.
func (m *metrics) answered(r *usherv1.AuthReply, took time.Duration) {
	outcome := r.GetOutcome()
	if r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED {
		outcome = strings.ToLower(strings.TrimPrefix(r.GetStatus().String(), "STATUS_"))
	}
	m.answers.WithLabelValues(outcome, reasonLabel(r.GetReason())).Inc()
	m.answerSeconds.WithLabelValues(outcome).Observe(took.Seconds())
}

// reasonLabel keeps what an edge once wrote into a row, and the ledger now repeats, from
// making series: only reasons that this version knows are labels.
func reasonLabel(reason string) string {
	if reason != "" && access.Reason(reason).Text() == reason {
		return "other"
	}
	return reason
}

// checked is decide.Deps.Observe.
func (m *metrics) checked(check, result string, took time.Duration) {
	m.checkSeconds.WithLabelValues(check, result).Observe(took.Seconds())
}

// keysFetched is decide.Deps.Fetched.
func (m *metrics) keysFetched(check string, at time.Time) {
	m.keys.WithLabelValues(check).Set(float64(at.Unix()))
}

// checkState shows a check's state.
func (m *metrics) checkState(check, state string) {
	for _, s := range []string{checkIdle, checkUp, checkFailing, checkOpen} {
		value := 0.0
		if s == state {
			value = 1
		}
		m.checkStates.WithLabelValues(m.worker, check, s).Set(value)
	}
}

// checkGone forgets a check that the policy has no more.
func (m *metrics) checkGone(check string) {
	m.checkStates.DeletePartialMatch(prometheus.Labels{telemetry.Worker: m.worker, telemetry.Check: check})
}

// committed is admission.CommitterOptions.Observe.
func (m *metrics) committed(items int, took time.Duration, err error) {
	result := "committed"
	if err != nil {
		result = "failed"
	}
	m.commitSeconds.WithLabelValues(result).Observe(took.Seconds())
	m.commitItems.WithLabelValues().Observe(float64(items))
}

// ruleFailed is decide.Deps.Failed.
func (m *metrics) ruleFailed(rule string) { m.ruleFailures.WithLabelValues(rule).Inc() }

func (m *metrics) policyBlind(blind bool) {
	value := 0.0
	if blind {
		value = 1
	}
	m.blind.WithLabelValues(m.worker).Set(value)
}

func (m *metrics) policyRevision(revision int64) {
	m.policy.WithLabelValues(m.worker).Set(float64(revision))
}
