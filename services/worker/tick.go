package worker

import (
	"context"
	"log/slog"
	"time"

	"usher.internal/libs/telemetry"
)

const (
	// tickEvery is the contract of DESIGN.md §3: an edge without a tick for 3 s is cut off.
	tickEvery   = 500 * time.Millisecond
	tickTimeout = time.Second
)

// ticker sends the control stream's last sequence; *bus.Conn is one.
type ticker interface {
	Tick(ctx context.Context) error
}

// tick sends a tick every 500 ms until ctx ends. Every worker does: an edge takes the
// highest sequence, and no leader has to be found.
func tick(ctx context.Context, t ticker, log *slog.Logger) error {
	every := time.NewTicker(tickEvery)
	defer every.Stop()
	failing := false
	for {
		err := tickOnce(ctx, t)
		if ctx.Err() != nil {
			return nil
		}
		// One line when it starts to fail, not two a second.
		if err != nil && !failing {
			log.WarnContext(ctx, "ticks do not go out", slog.Any(telemetry.Error, err))
		}
		if err == nil && failing {
			log.InfoContext(ctx, "ticks go out again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func tickOnce(ctx context.Context, t ticker) error {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	return t.Tick(ctx)
}
