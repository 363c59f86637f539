package bus

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// answerTime is what each hop keeps of the deadline for its answer's way back.
	answerTime = 20 * time.Millisecond
	// drainTimeout bounds how long a stop waits for the server's word that nothing
	// more comes; flushTimeout how long it waits for the last answers to be out.
	drainTimeout = 10 * time.Second
	flushTimeout = 5 * time.Second
	// seldomEvery is the least time between two lines about bad outside input.
	seldomEvery = 10 * time.Second
)

// job is a request that waits for a place in the pool.
type job struct {
	msg *nats.Msg
	at  time.Time // when it came
}

// pool answers the requests of one subscription with a fixed number of goroutines.
type pool struct {
	c   *Conn
	svc service
	log *slog.Logger

	jobs chan job
	quit chan struct{} // closed when no more jobs come
	wg   sync.WaitGroup

	malformed, strange seldom
}

func (c *Conn) serve(ctx context.Context, region string, workers, queue int, svc service) error {
	if err := names.CheckToken("region", region); err != nil {
		return err
	}
	if workers < 1 || queue < 0 {
		return fmt.Errorf("pool of %d workers with a queue of %d", workers, queue)
	}
	p := &pool{c: c, svc: svc, log: c.log, jobs: make(chan job, queue), quit: make(chan struct{})}
	// What has been taken is finished, whatever happens to ctx.
	base := context.WithoutCancel(ctx)
	for range workers {
		p.wg.Go(func() { p.work(base) })
	}
	sub, err := c.nc.QueueSubscribe(svc.subjects(region), names.QueueGroup, p.take)
	if err != nil {
		close(p.quit)
		p.wg.Wait()
		return fmt.Errorf("subscribing to %s: %w", svc.subjects(region), err)
	}
	gone := make(chan struct{})
	var once sync.Once
	sub.SetClosedHandler(func(string) { once.Do(func() { close(gone) }) })
	select {
	case <-ctx.Done():
	case <-gone:
		err = ErrDisconnected // the connection was closed under us
	}
	p.stop(sub, gone)
	return err
}

// stop takes no more requests, answers those taken, and sends the answers off.
func (p *pool) stop(sub *nats.Subscription, gone <-chan struct{}) {
	p.drain(sub, gone)
	close(p.quit)
	p.wg.Wait()
	if p.c.nc.IsConnected() {
		if err := p.c.nc.FlushTimeout(flushTimeout); err != nil {
			p.log.Warn("flushing the last answers", slog.Any(telemetry.Error, err))
		}
	}
}

// drain returns when the subscription's callback will not be called again.
func (p *pool) drain(sub *nats.Subscription, gone <-chan struct{}) {
	l := p.c.link.Load()
	if !p.c.nc.IsConnected() {
		_ = sub.Unsubscribe() // nobody is left to confirm, or to be answered
		return
	}
	// Drain tells the server first and then works off what it had sent before.
	if sub.Drain() != nil {
		return // it is gone already
	}
	select {
	case <-gone:
		return
	case <-l.ctx.Done():
	case <-time.After(drainTimeout):
		p.log.Warn("nats didn't confirm the end of the subscription", slog.String(telemetry.Kind, p.svc.kind))
	}
	_ = sub.Unsubscribe() // it can only be gone already
}

// take is the subscription's callback. It never waits: one goroutine calls it for all
// requests, and what queued up behind it would be answered to nobody.
func (p *pool) take(msg *nats.Msg) {
	if !p.answerable(msg) {
		return
	}
	select {
	case p.jobs <- job{msg: msg, at: time.Now()}:
	default:
		p.answer(msg, p.svc.refuse(usherv1.AuthReply_STATUS_BUSY), "busy")
	}
}

// answerable drops requests that nobody waits for, or whose reply subject is not an
// inbox: an edge could otherwise have a worker publish, with the worker's rights, on
// a control subject.
func (p *pool) answerable(msg *nats.Msg) bool {
	if strings.HasPrefix(msg.Reply, "_INBOX.") || strings.HasPrefix(msg.Reply, "_R_.") {
		return true
	}
	if p.strange.allow() {
		p.log.Warn("request dropped: its reply subject is not an inbox",
			slog.String(telemetry.Kind, p.svc.kind), slog.String(telemetry.Edge, edgeOf(msg.Subject)))
	}
	return false
}

func (p *pool) work(ctx context.Context) {
	for {
		select {
		case j := <-p.jobs:
			p.do(ctx, j)
			continue
		case <-p.quit:
		}
		select { // what was taken before the stop
		case j := <-p.jobs:
			p.do(ctx, j)
		default:
			return
		}
	}
}

func (p *pool) do(ctx context.Context, j job) {
	waited := time.Since(j.at)
	p.c.metrics.queue.WithLabelValues(p.svc.kind).Observe(waited.Seconds())
	deadline := j.at.Add(budget(j.msg.Header)).Add(-answerTime)
	if time.Until(deadline) <= 0 {
		p.answer(j.msg, p.svc.refuse(usherv1.AuthReply_STATUS_LATE), "late")
		return
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	ctx = propagation.TraceContext{}.Extract(ctx, Carrier(j.msg.Header))
	ctx, span := p.c.tracer.Start(ctx, p.svc.process, trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	edge := edgeOf(j.msg.Subject)
	reply, result := p.svc.guarded(ctx, p.log, edge, j.msg.Data)
	if result == "malformed" && p.malformed.allow() {
		p.log.WarnContext(ctx, "malformed request", slog.String(telemetry.Kind, p.svc.kind), slog.String(telemetry.Edge, edge))
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String(telemetry.MessagingSystem, telemetry.NATS),
			attribute.String(telemetry.RPCSystem, telemetry.NATS),
			attribute.String(telemetry.DestinationTemplate, p.svc.template()),
			attribute.String(telemetry.ConsumerGroup, names.QueueGroup),
			attribute.String(telemetry.Edge, edge),
			attribute.String(telemetry.Result, result),
			attribute.Float64(telemetry.QueueWait, waited.Seconds()),
		)
	}
	p.answer(j.msg, reply, result)
}

func (p *pool) answer(msg *nats.Msg, reply proto.Message, result string) {
	p.c.metrics.served.WithLabelValues(p.svc.kind, result).Inc()
	data, err := proto.Marshal(reply)
	if err != nil {
		// Text that is not UTF-8 slipped into the reply: refuse rather than be silent.
		p.log.Error("reply cannot be encoded", slog.String(telemetry.Kind, p.svc.kind), slog.Any(telemetry.Error, err))
		if data, err = proto.Marshal(p.svc.refuse(usherv1.AuthReply_STATUS_INTERNAL)); err != nil {
			return
		}
	}
	if err := p.c.nc.Publish(msg.Reply, data); err != nil && p.strange.allow() {
		p.log.Warn("reply cannot be sent", slog.String(telemetry.Kind, p.svc.kind), slog.Any(telemetry.Error, err))
	}
}

// budget is what was left of the caller's time when the request was sent. A missing
// or odd header counts as the default, an absurd one as the most that we believe.
func budget(h nats.Header) time.Duration {
	text := Carrier(h).Get(names.DeadlineHeader)
	if text == "" {
		return defaultDeadline
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || ms < 0:
		return defaultDeadline
	case ms > maxDeadline.Milliseconds():
		return maxDeadline
	}
	return time.Duration(ms) * time.Millisecond
}

// edgeOf is the last token of a request's subject.
func edgeOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// seldom lets one of many lines about the same thing through.
type seldom struct{ last atomic.Int64 }

func (s *seldom) allow() bool {
	now := time.Now().UnixNano()
	last := s.last.Load()
	return (last == 0 || now-last >= int64(seldomEvery)) && s.last.CompareAndSwap(last, now)
}
