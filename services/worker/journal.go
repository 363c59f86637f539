package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// kindUncounted is the journal's kind for decisions that workers made without the ledger.
const kindUncounted = nats.JournalUncounted

// Leases without the ledger are short, so that viewers are counted soon after it is back,
// and spread, so that they don't all come back in one moment.
const (
	uncountedLease  = 10 * time.Second
	uncountedSpread = 5 * time.Second
	// A running session holds a seat that outlives any lease given on it by 30 s, and the
	// sweeper adds the outage to it. It may wait longer, which halves what is journaled.
	runningLease  = 20 * time.Second
	runningSpread = 5 * time.Second
)

// journaler stores an entry durably under the edge it is about; an error means that it may
// not be stored.
type journaler interface {
	put(ctx context.Context, edge, kind string, entry *usherv1.JournalEntry) error
}

// journal is the journaler over the bus: the journal of the worker's own region.
type journal struct {
	bus    *bus.Conn
	region string
}

func (j journal) put(ctx context.Context, edge, kind string, entry *usherv1.JournalEntry) error {
	return j.bus.Journal(j.region, edge).Put(ctx, kind, entry)
}

// withoutLedger answers a question that the ledger could not take. A refusal stands as it
// is. A running session that the policy still allows goes on; a new viewer is let in
// uncounted, or refused as unavailable, by the rule's `uncounted`. Whichever it is, it is
// journaled before it is answered; the recorder makes its row from that.
//
// If not even the journal takes it there is no decision: STATUS_INTERNAL makes the edge ask
// another worker, then use the fail mode of the stream and report that under the same id
// from its own journal. So no answer is ever without its row.
func (a *answerer) withoutLedger(ctx context.Context, q *question, cause error) *usherv1.AuthReply {
	v := &q.verdict
	r := admission.Result{Decision: q.ID, Outcome: v.Outcome, Reason: v.Reason, Realm: v.Realm, User: v.User, Live: true}
	if v.Outcome == access.Allow {
		a.letIn(q, &r)
	}
	ctx, cancel := q.budget.forAnswer(ctx)
	defer cancel()
	entry, err := a.entry(ctx, q, r)
	if err == nil {
		err = a.journal.put(ctx, q.Edge, kindUncounted, entry)
	}
	if err != nil {
		a.metrics.uncounted.WithLabelValues("lost").Inc()
		if a.lost.Allow() {
			a.log.ErrorContext(ctx, "neither ledger nor journal took a decision, the edge decides",
				slog.String(telemetry.Edge, q.Edge), slog.Any(telemetry.Error, err), slog.Any(telemetry.Cause, cause))
		}
		return a.status(usherv1.AuthReply_STATUS_INTERNAL)
	}
	a.metrics.uncounted.WithLabelValues(string(r.Outcome)).Inc()
	m := a.reply(q, r)
	m.Unaccounted = r.Outcome == access.Allow
	return m
}

// letIn decides about a viewer whom the checks accept and nobody can count.
func (a *answerer) letIn(q *question, r *admission.Result) {
	v := &q.verdict
	switch {
	case q.Session != uuid.Nil:
		r.Reason, r.Session = access.Uncounted, q.Session
		v.Lease = min(v.Lease, runningLease+rand.N(runningSpread))
		v.Text = "the session ledger is away; the running session goes on"
	case v.Shadow, v.Rule != nil && v.Rule.Uncounted == access.FailAllow:
		r.Reason, r.Session = access.Uncounted, sessionID(a.keyer, q.ID)
		v.Lease = min(v.Lease, uncountedLease+rand.N(uncountedSpread))
		v.Text = access.Uncounted.Text()
	default:
		r.Outcome, r.Reason = access.Deny, access.Unavailable
		v.Text = "the session ledger is away and the rule lets nobody in uncounted"
	}
	v.Outcome, v.Reason = r.Outcome, r.Reason
	v.Steps = append(v.Steps, access.Step{Name: "ledger", Result: "unavailable", Text: v.Text})
}

// entry is the journal's form of the row. Its id is made of the question's, so that a second
// try of the same question is one entry; but it is another than that of the edge's own entry
// about the question, or the stream would drop the later of the two as a repetition.
func (a *answerer) entry(ctx context.Context, q *question, r admission.Result) (*usherv1.JournalEntry, error) {
	rec := a.record(ctx, q)
	steps, err := json.Marshal(rec.Steps)
	if err != nil {
		return nil, fmt.Errorf("writing steps: %w", err)
	}
	row := &usherv1.DecisionRow{
		Id:             rec.ID[:],
		Region:         rec.Region,
		Edge:           rec.Edge,
		Node:           rec.Node,
		Caller:         rec.Caller,
		Stream:         rec.Stream,
		Realm:          rec.Realm,
		User:           rec.User,
		UserAgent:      rec.UserAgent,
		Outcome:        string(r.Outcome),
		Reason:         string(r.Reason),
		PolicyRevision: rec.Revision,
		TraceId:        rec.TraceID[:],
		DurationUs:     rec.Duration.Microseconds(),
		Steps:          string(steps),
		Would:          string(rec.Would),
		WouldReason:    string(rec.WouldReason),
		WouldRule:      rec.Rule,
	}
	if rec.IP.IsValid() {
		row.Ip = rec.IP.String()
	}
	if r.Session != uuid.Nil {
		row.SessionId = r.Session[:]
	}
	return &usherv1.JournalEntry{Id: kindUncounted + "." + rec.ID.String(), What: &usherv1.JournalEntry_Uncounted{Uncounted: row}}, nil
}
