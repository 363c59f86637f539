package recorder

import (
	"context"
	"log/slog"
	"time"

	"usher.internal/libs/telemetry"
)

// round is something that is done again and again. Several recorders may do it at once.
type round struct {
	name string
	// every is the time between two rounds, retry that after one that failed.
	every, retry time.Duration
	// timeout bounds one round: a database over a black hole must not hold it for ever.
	timeout time.Duration
	do      func(ctx context.Context) error
	log     *slog.Logger
	metrics *metrics
}

// Run does rounds until ctx ends; the first at once. It logs when they begin to fail and
// when they work again, not each failure: an outage of a minute would be hundreds of lines.
func (r *round) Run(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	var failing time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		err := r.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil:
			r.metrics.faults.WithLabelValues(r.name).Inc()
			if failing.IsZero() {
				failing = time.Now()
				r.log.WarnContext(ctx, "recorder's task fails, it is tried again", slog.String(telemetry.Task, r.name), slog.Any(telemetry.Error, err))
			}
			next.Reset(r.retry)
			continue
		case !failing.IsZero():
			r.log.InfoContext(ctx, "recorder's task works again", slog.String(telemetry.Task, r.name), slog.Duration(telemetry.Gap, time.Since(failing)))
			failing = time.Time{}
		}
		next.Reset(r.every)
	}
}

func (r *round) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return r.do(ctx)
}
