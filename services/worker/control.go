package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"usher.internal/libs/admission"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// lanes publish side by side; what is about one session key stays in one lane and so in order.
	lanes     = 8
	laneQueue = 512
	// publishTimeout bounds one publication; the recorder takes over after 200 ms anyway.
	publishTimeout = 2 * time.Second
	// deleteEvery and deleteBatch bound how long a published row stays in the outbox. It
	// must be well under the recorder's 200 ms, or each message would go out twice.
	deleteEvery   = 50 * time.Millisecond
	deleteBatch   = 256
	deleteTimeout = 2 * time.Second
)

// broadcaster sends a control message to all edges; *bus.Conn is one.
type broadcaster interface {
	PublishControl(ctx context.Context, c *usherv1.Control) (uint64, error)
}

// Outbox forgets the rows whose messages have been published; *pgstore.Store is one.
type Outbox interface {
	Published(ctx context.Context, rows []int64) error
}

// announcer tells the edges at once, after the commit, which sessions were ended by force.
// What it cannot publish or has no room for stays in the outbox for the recorder.
type announcer struct {
	bus       broadcaster
	outbox    Outbox
	log       *slog.Logger
	metrics   *metrics
	queues    [lanes]chan admission.Ended
	published chan int64
}

func newAnnouncer(b broadcaster, o Outbox, log *slog.Logger, m *metrics) *announcer {
	a := &announcer{bus: b, outbox: o, log: log, metrics: m, published: make(chan int64, deleteBatch)}
	for i := range a.queues {
		a.queues[i] = make(chan admission.Ended, laneQueue)
	}
	return a
}

// tell implements teller: it never blocks.
func (a *announcer) tell(ended []admission.Ended) {
	for _, e := range ended {
		select {
		case a.queues[e.Key[0]%lanes] <- e:
		default:
			a.metrics.control.WithLabelValues("left").Inc()
		}
	}
}

// Run publishes until ctx ends, then what is queued already.
func (a *announcer) Run(ctx context.Context) error {
	var publishing, deleting sync.WaitGroup
	deleting.Go(func() { a.delete(context.WithoutCancel(ctx)) })
	for _, queue := range a.queues {
		publishing.Go(func() { a.publish(ctx, queue) })
	}
	publishing.Wait()
	close(a.published)
	deleting.Wait()
	return nil
}

// publish works off one lane. What was committed before the stop is still told, up to the
// first failure: a dead connection costs one timeout then, not one a message.
func (a *announcer) publish(ctx context.Context, queue <-chan admission.Ended) {
	for {
		select {
		case e := <-queue:
			if !a.send(ctx, e) && ctx.Err() != nil {
				return
			}
			continue
		case <-ctx.Done():
		}
		if len(queue) == 0 {
			return
		}
	}
}

func (a *announcer) send(ctx context.Context, e admission.Ended) bool {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), publishTimeout, fmt.Errorf("control message not acknowledged within %s", publishTimeout))
	defer cancel()
	if _, err := a.bus.PublishControl(ctx, e.Control()); err != nil {
		a.metrics.control.WithLabelValues("failed").Inc()
		a.log.DebugContext(ctx, "control message left to the recorder", slog.Any(telemetry.Error, err))
		return false
	}
	a.metrics.control.WithLabelValues("published").Inc()
	if e.Outbox != 0 {
		a.published <- e.Outbox
	}
	return true
}

// delete takes published rows out of the outbox, many at a time, until published is closed.
func (a *announcer) delete(ctx context.Context) {
	rows := make([]int64, 0, deleteBatch)
	due := time.NewTimer(deleteEvery)
	due.Stop()
	for {
		select {
		case row, more := <-a.published:
			if !more {
				a.forget(ctx, rows)
				return
			}
			if rows = append(rows, row); len(rows) == 1 {
				due.Reset(deleteEvery)
			}
			if len(rows) < deleteBatch {
				continue
			}
		case <-due.C:
		}
		a.forget(ctx, rows)
		rows = rows[:0]
	}
}

// forget may fail: the recorder then publishes the same messages once more, which changes
// nothing, and deletes them.
func (a *announcer) forget(ctx context.Context, rows []int64) {
	if len(rows) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if err := a.outbox.Published(ctx, rows); err != nil {
		a.log.DebugContext(ctx, "published messages stay in the outbox", slog.Int(telemetry.Count, len(rows)), slog.Any(telemetry.Error, err))
	}
}
