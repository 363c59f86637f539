package recorder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// outboxEvery and outboxAge are the contract of DESIGN.md §3: a worker publishes at
	// once, any recorder what is left after 200 ms.
	outboxEvery   = 100 * time.Millisecond
	outboxAge     = 200 * time.Millisecond
	outboxBatch   = 256
	outboxTimeout = 5 * time.Second
)

// Outbox holds the messages for the edges that were committed and not yet told.
type Outbox interface {
	// Outbox reads up to limit messages that have waited for olderThan, oldest first.
	Outbox(ctx context.Context, olderThan time.Duration, limit int) ([]admission.Ended, error)
	// Published removes messages that have been told.
	Published(ctx context.Context, rows []int64) error
}

// broadcaster tells all edges; *bus.Conn is one.
type broadcaster interface {
	PublishControl(ctx context.Context, c *usherv1.Control) (uint64, error)
}

// relay tells the edges what the workers committed and did not tell: they died, or NATS
// was away. Two recorders may tell the same at once, which changes nothing for an edge.
type relay struct {
	outbox  Outbox
	bus     broadcaster
	metrics *metrics
}

// tell empties the outbox. What was published is removed also when a later one fails.
func (r *relay) tell(ctx context.Context) error {
	for {
		left, err := r.outbox.Outbox(ctx, outboxAge, outboxBatch)
		if err != nil {
			return err
		}
		r.metrics.outbox.WithLabelValues().Set(float64(len(left)))
		if len(left) == 0 {
			return nil
		}
		told, err := r.publish(ctx, left)
		if len(told) > 0 {
			err = errors.Join(err, r.outbox.Published(ctx, told))
		}
		if err != nil || len(left) < outboxBatch {
			return err
		}
	}
}

// publish returns the rows that were told before the first failure: without NATS each
// further one would cost its own timeout.
func (r *relay) publish(ctx context.Context, left []admission.Ended) ([]int64, error) {
	told := make([]int64, 0, len(left))
	for i := range left {
		if _, err := r.bus.PublishControl(ctx, left[i].Control()); err != nil {
			r.metrics.control.WithLabelValues("failed").Inc()
			return told, fmt.Errorf("telling the edges: %w", err)
		}
		r.metrics.control.WithLabelValues("published").Inc()
		told = append(told, left[i].Outbox)
	}
	return told, nil
}
