package recorder

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

const (
	diskEvery   = 30 * time.Second
	diskTimeout = 10 * time.Minute
	// diskFull is the share of the volume from which history goes early.
	diskFull = 0.80
	// diskDrops bounds one look: the file system may take a while to give room back.
	diskDrops = 8
	// diskTell is how often it is told that nothing is left to drop.
	diskTell = time.Hour
)

// HistoryStore makes room by dropping the oldest day of history; ok is false when none is left.
type HistoryStore interface {
	DropOldest(ctx context.Context, author string) (d pgstore.EarlyDrop, ok bool, err error)
}

// diskWatch drops the oldest history when the volume on which Postgres lies fills: rather a
// shorter memory than a ledger that cannot write. Seats and usage never go.
type diskWatch struct {
	path    string
	author  string
	store   HistoryStore
	used    func(path string) (float64, error)
	log     *slog.Logger
	metrics *metrics
	told    time.Time // when it was last told that nothing is left
}

func (w *diskWatch) look(ctx context.Context) error {
	for range diskDrops {
		used, err := w.used(w.path)
		if err != nil {
			return fmt.Errorf("how full the disk is: %w", err)
		}
		w.metrics.disk.WithLabelValues().Set(used)
		if used < diskFull {
			return nil
		}
		gone, ok, err := w.store.DropOldest(ctx, w.author)
		if err != nil {
			return err
		}
		if !ok {
			if time.Since(w.told) > diskTell {
				w.told = time.Now()
				w.log.ErrorContext(ctx, "the disk of Postgres fills and no history is left to drop", slog.Float64(telemetry.Used, used))
			}
			return nil
		}
		w.metrics.early.WithLabelValues().Inc()
		w.log.ErrorContext(ctx, "the disk of Postgres fills: the oldest history went early", slog.Float64(telemetry.Used, used),
			slog.String(telemetry.Partition, gone.Table), slog.Int64(telemetry.Bytes, gone.Bytes))
	}
	return nil
}

// diskUsed is the used share of the volume under a path, as df tells it: what only root may use counts as used.
func diskUsed(path string) (float64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("asking for the room at %s: %w", path, err)
	}
	used := float64(s.Blocks - s.Bfree)
	if used+float64(s.Bavail) == 0 {
		return 0, nil // a volume without blocks, such as a container's overlay of nothing
	}
	return used / (used + float64(s.Bavail)), nil
}
