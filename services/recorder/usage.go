package recorder

import (
	"context"
	"time"
)

const (
	usageEvery   = time.Minute
	usageTimeout = 10 * time.Minute
	// peaksShare of the time may go into working out peaks: a day of millions of sessions takes a minute.
	peaksShare = 20
)

// UsageStore counts what was played, for good. Any number of recorders may do it at once.
type UsageStore interface {
	// RollUsage counts the sessions that have closed since the last call, each once.
	RollUsage(ctx context.Context) (int, error)
	// RollPeaks works out the peaks of the days that have changed.
	RollPeaks(ctx context.Context) (int, error)
}

// accountant keeps usher.usage. It is used by one task alone.
type accountant struct {
	store UsageStore
	now   func() time.Time
	// peaks is when peaks are worked out again.
	peaks time.Time
}

func (a *accountant) count(ctx context.Context) error {
	if _, err := a.store.RollUsage(ctx); err != nil {
		return err
	}
	begun := a.now()
	if begun.Before(a.peaks) {
		return nil
	}
	if _, err := a.store.RollPeaks(ctx); err != nil {
		return err
	}
	a.peaks = begun.Add(peaksShare * a.now().Sub(begun))
	return nil
}
