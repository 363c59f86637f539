package recorder

import (
	"context"
	"log/slog"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

const (
	// sweepEvery is also the tick from which the next sweeper tells how long nobody swept.
	sweepEvery   = time.Second
	sweepTimeout = 10 * time.Second
	// notableGap is a gap that is worth a line: Postgres, or all recorders, were away.
	notableGap = 5 * time.Second
)

// SeatStore ends the seats that nobody renewed. Any number of recorders may sweep at once.
type SeatStore interface {
	Sweep(ctx context.Context) (pgstore.Swept, error)
}

// sweeper ends expired seats. After an outage the store adds the gap to every seat first:
// nobody could have renewed them meanwhile.
type sweeper struct {
	store   SeatStore
	log     *slog.Logger
	metrics *metrics
}

func (s *sweeper) sweep(ctx context.Context) error {
	swept, err := s.store.Sweep(ctx)
	// Also of a sweep that failed half-way, some have ended.
	s.metrics.expired.WithLabelValues().Add(float64(swept.Expired))
	s.metrics.soft.WithLabelValues().Add(float64(swept.Soft))
	s.metrics.gap.WithLabelValues().Add(swept.Gap.Seconds())
	if swept.Gap >= notableGap {
		s.log.WarnContext(ctx, "nobody swept for a while, the time is added to every seat", slog.Duration(telemetry.Gap, swept.Gap))
	}
	return err
}
