package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// maxClockOff is how far a question's id may be from this worker's clock: the row's
	// partition is the id's time, and stored ids are looked for near it.
	maxClockOff = 5 * time.Minute
	// ledgerAway is the silence after which a ledger that takes too long counts as away.
	ledgerAway = 2 * time.Second
	// maxHop is the longest way from edge to worker that is believed; clocks may differ.
	maxHop = 10 * time.Second
)

// committer writes a decision and takes its seat; *admission.Committer is one.
type committer interface {
	Do(ctx context.Context, item admission.Item) (admission.Result, error)
	// Answered says whether the ledger answered within the last d.
	Answered(d time.Duration) bool
}

// teller tells the edges which sessions were ended by force. It does not block.
type teller interface {
	tell(ended []admission.Ended)
}

// answerer answers questions. It is safe for concurrent use.
type answerer struct {
	region   string
	policies *policies
	ledger   committer
	journal  journaler
	teller   teller
	keyer    *access.Keyer
	tracer   trace.Tracer
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	lost     telemetry.Seldom // limits lines about decisions that nobody took
}

// question is what is known of one question while it is worked on.
type question struct {
	*access.Request
	judge   *judge
	verdict decide.Verdict
	began   time.Time
	budget  budget
	// foreign says that the asking edge has no right to this node, or that the question
	// is malformed: it must not touch the sessions that it names.
	foreign bool
}

// answer is the bus.AuthHandler: it always returns a reply. Nothing that a question
// contains ends the worker: a panic is logged with its stack and answered STATUS_INTERNAL,
// so that the edge asks another worker.
func (a *answerer) answer(ctx context.Context, edge string, m *usherv1.AuthRequest) (reply *usherv1.AuthReply) {
	began := a.now()
	defer func() {
		if v := recover(); v != nil {
			a.log.ErrorContext(ctx, "answering a question panicked",
				slog.String(telemetry.Edge, edge), slog.Any(telemetry.Panic, v), slog.String(telemetry.Stack, string(debug.Stack())))
			reply = a.status(usherv1.AuthReply_STATUS_INTERNAL)
		}
		a.metrics.answered(reply, a.now().Sub(began))
	}()
	return a.work(ctx, edge, m, began)
}

func (a *answerer) work(ctx context.Context, edge string, m *usherv1.AuthRequest, began time.Time) *usherv1.AuthReply {
	r, err := toRequest(a.region, edge, m)
	if r.ID == uuid.Nil {
		// No row can stand under such an id; the refusal gets one of ours.
		id, idErr := uuid.NewV7()
		if idErr != nil {
			return a.status(usherv1.AuthReply_STATUS_INTERNAL)
		}
		r.ID = id
	} else if off := began.Sub(admission.IDTime(r.ID)).Abs(); off > maxClockOff {
		return a.status(usherv1.AuthReply_STATUS_CLOCK)
	}
	j := a.policies.judge()
	if j == nil {
		return a.status(usherv1.AuthReply_STATUS_INTERNAL)
	}
	defer j.release()
	q := &question{Request: r, judge: j, began: began, budget: newBudget(ctx, time.Now())}
	a.decide(ctx, q, err)
	return a.settle(ctx, q)
}

// decide fills in the verdict: malformed questions and foreign nodes are refused here,
// everything else is the policy's matter.
func (a *answerer) decide(ctx context.Context, q *question, malformed error) {
	node := q.judge.snapshot.Nodes[q.Node]
	switch {
	case malformed != nil:
		q.refuse(access.BadRequest, malformed.Error())
	case node == nil:
		q.refuse(access.UnknownNode, access.UnknownNode.Text())
	case node.Edge != "" && node.Edge != q.Edge:
		q.refuse(access.WrongEdge, access.WrongEdge.Text())
	default:
		ctx, cancel := q.budget.forChecks(ctx)
		defer cancel()
		q.verdict = q.judge.engine.Decide(ctx, q.Request)
	}
}

// refuse is a denial that no rule made.
func (q *question) refuse(reason access.Reason, text string) {
	q.foreign = true
	q.verdict = decide.Verdict{Outcome: access.Deny, Reason: reason, Text: text, Limit: -1}
}

// settle writes the verdict down and answers what then stands: the ledger has the last
// word on an allow, and on a question that was answered before.
func (a *answerer) settle(ctx context.Context, q *question) *usherv1.AuthReply {
	result, err := a.commit(ctx, q, a.item(ctx, q))
	switch {
	case err == nil:
		for i := range result.Ended {
			if result.Ended[i].Reason == access.CloseZapped {
				result.Ended[i].By, result.Ended[i].ByBelief = q.Key, q.CameBack
			}
		}
		a.teller.tell(result.Ended)
		return a.reply(q, result)
	case errors.Is(err, admission.ErrOverload), errors.Is(err, errCommitSlow) && a.ledger.Answered(ledgerAway):
		// The ledger is there and slow: the same question asked again finds what became of it. Letting viewers in
		// uncounted is for a ledger that is away.
		return a.status(usherv1.AuthReply_STATUS_BUSY)
	case errors.Is(err, admission.ErrBadItem):
		return a.refuseBad(ctx, q, err)
	default:
		return a.withoutLedger(ctx, q, err)
	}
}

// commit gives one item to the group commit, within the ledger's share of the budget.
func (a *answerer) commit(ctx context.Context, q *question, item admission.Item) (admission.Result, error) {
	ctx, cancel := q.budget.forCommit(ctx)
	defer cancel()
	ctx, span := a.tracer.Start(ctx, telemetry.SpanLedgerCommit, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	result, err := a.ledger.Do(ctx, item)
	if err != nil {
		span.SetStatus(codes.Error, "not committed")
		span.RecordError(err)
		return result, err
	}
	span.SetAttributes(
		attribute.String(telemetry.Outcome, string(result.Outcome)),
		attribute.String(telemetry.Reason, string(result.Reason)),
		attribute.Bool(telemetry.Repeated, result.Repeated))
	return result, nil
}

// item is the verdict as the ledger takes it.
func (a *answerer) item(ctx context.Context, q *question) admission.Item {
	v := &q.verdict
	if v.Outcome != access.Allow {
		audit := &admission.Audit{Record: a.record(ctx, q), Outcome: v.Outcome, Reason: v.Reason}
		if !q.foreign && v.Reason != access.NoArchive {
			audit.Close = q.Session // who may not see a part of the archive plays on what he had
		}
		return admission.Item{Audit: audit}
	}
	return admission.Item{Open: &admission.Open{
		Record:       a.record(ctx, q),
		Reason:       v.Reason,
		Session:      sessionID(a.keyer, q.ID),
		Running:      q.Session,
		Replaces:     q.Replaces,
		Key:          q.Key,
		Subject:      v.Subject,
		Token:        a.keyer.Fingerprint(q.Token),
		Device:       access.Clean(q.device(), access.MaxName),
		StillPlaying: q.StillPlaying,
		// The check that named the user could not be asked.
		Keep:    v.Unavailable && v.User == "" && q.Session != uuid.Nil,
		Limit:   v.Limit,
		Mode:    v.Mode,
		Cut:     v.Cut,
		More:    more(v.More),
		Counted: v.Counted,
		Shadow:  v.Shadow,
		Seat:    v.Seat,
		Lease:   v.Lease,
	}}
}

// more are the verdict's further limits as the ledger takes them.
func more(limits []decide.Limit) []admission.Limit {
	if len(limits) == 0 {
		return nil
	}
	out := make([]admission.Limit, len(limits))
	for i, l := range limits {
		out[i] = admission.Limit{Name: l.Name, Subject: l.Subject, Sessions: l.Sessions, Mode: l.Mode, Cut: l.Cut}
	}
	return out
}

// device is the one that a check named, else the edge's.
func (q *question) device() string {
	if q.verdict.Device != "" {
		return q.verdict.Device
	}
	return q.Device
}

// stream is the stream's own name, after aliasing.
func (q *question) stream() string {
	if q.verdict.Stream != "" {
		return q.verdict.Stream
	}
	return q.Stream
}

// record is the audit row besides the ledger's own part.
func (a *answerer) record(ctx context.Context, q *question) admission.Record {
	v := &q.verdict
	return admission.Record{
		ID:        q.ID,
		Region:    q.Region,
		Edge:      q.Edge,
		Node:      q.Node,
		Caller:    q.Caller,
		Stream:    q.stream(),
		Realm:     access.Clean(v.Realm, access.MaxName),
		User:      access.Clean(v.User, access.MaxName),
		IP:        q.IP,
		UserAgent: q.UserAgent,
		Referer:   q.Referer,
		Country:   v.Country,
		Revision:  q.judge.snapshot.Revision,
		TraceID:   trace.SpanContextFromContext(ctx).TraceID(),
		Duration:  a.now().Sub(q.began),
		Steps:     a.steps(q),

		Would: v.Would, WouldReason: v.WouldReason, Rule: ruleName(v.Rule),
	}
}

// refuseBad answers a question that Postgres cannot hold. Its edge should have cleaned it,
// so that the row says only who asked.
func (a *answerer) refuseBad(ctx context.Context, q *question, cause error) *usherv1.AuthReply {
	a.log.WarnContext(ctx, "question cannot be stored, refused",
		slog.String(telemetry.Edge, q.Edge), slog.Any(telemetry.Error, cause))
	bare := &access.Request{ID: q.ID, Region: a.region, Edge: q.Edge}
	if q.judge.snapshot.Nodes[q.Node] != nil {
		bare.Node = q.Node
	}
	q.Request = bare
	q.refuse(access.BadRequest, "the question holds what cannot be stored")
	result, err := a.commit(ctx, q, a.item(ctx, q))
	if err != nil {
		return a.withoutLedger(ctx, q, err)
	}
	return a.reply(q, result)
}

// status is a reply that decides nothing.
func (a *answerer) status(s usherv1.AuthReply_Status) *usherv1.AuthReply {
	return &usherv1.AuthReply{Status: s, WorkerUnixMs: a.now().UnixMilli()}
}

// ruleName is the rule's, "" where none judged.
func ruleName(rule *policy.Rule) string {
	if rule == nil {
		return ""
	}
	return rule.Name()
}
