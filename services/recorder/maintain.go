package recorder

import (
	"context"
	"log/slog"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
)

const (
	maintainEvery   = time.Hour
	maintainRetry   = time.Minute
	maintainTimeout = 10 * time.Minute
)

// PartitionStore makes the coming days' partitions and drops those past their retention.
type PartitionStore interface {
	Maintain(ctx context.Context, keep policy.Retention) (pgstore.Maintained, error)
}

// janitor keeps the partitions.
type janitor struct {
	store PartitionStore
	// snapshot is the policy in force, nil if there is none.
	snapshot func() *policy.Snapshot
	log      *slog.Logger
}

func (j *janitor) maintain(ctx context.Context) error {
	keep := policy.DefaultRetention()
	if s := j.snapshot(); s != nil {
		keep = s.Retention
	}
	done, err := j.store.Maintain(ctx, keep)
	if err != nil {
		return err
	}
	if done.Created > 0 || done.Dropped > 0 || done.Shortened > 0 {
		j.log.InfoContext(ctx, "partitions kept", slog.Int("created", done.Created), slog.Int("dropped", done.Dropped), slog.Int("shortened", done.Shortened))
	}
	return nil
}
