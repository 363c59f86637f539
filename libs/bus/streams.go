package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	names "usher.internal/schemas/nats"
)

const (
	// controlAge is how long a control message is replayed to an edge that starts.
	// Bars and leases are shorter.
	controlAge = 24 * time.Hour
	// journalAge is how long Postgres may be away before entries are lost.
	journalAge = 72 * time.Hour
	// journalDuplicates is the window in which a repeated entry id is dropped.
	journalDuplicates = 5 * time.Minute
	// ensureAttempts bounds the retries when others ensure at the same time.
	ensureAttempts = 10
)

// EnsureStreams makes the control stream, the region's journal and the two buckets,
// or mends those that exist: all that one region needs, or the hub of several. It may run anywhere, any number of times, at once.
// replicas applies to all of them; 0 leaves an existing stream as it is and makes
// new ones with 1. Ages and size limits that an operator changed are kept.
func (c *Conn) EnsureStreams(ctx context.Context, region string, replicas int) error {
	if err := names.CheckToken("region", region); err != nil {
		return err
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	for _, want := range []jetstream.StreamConfig{controlStream(), journalStream(region)} {
		if err := c.ensureStream(ctx, c.js, want, replicas); err != nil {
			return fmt.Errorf("ensuring stream %s: %w", want.Name, err)
		}
	}
	for _, bucket := range []string{names.PolicyBucket, names.ProjectionBucket} {
		if err := c.ensureBucket(ctx, bucket, replicas); err != nil {
			return fmt.Errorf("ensuring bucket %s: %w", bucket, err)
		}
	}
	return nil
}

func controlStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              names.ControlStream,
		Description:       "kills, evictions and bars: the last of each subject",
		Subjects:          []string{names.ControlAll},
		MaxMsgsPerSubject: 1,
		MaxAge:            controlAge,
		Storage:           jetstream.FileStorage,
		Duplicates:        journalDuplicates,
		DenyDelete:        true,
	}
}

func journalStream(region string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        names.JournalStream(region),
		Description: "what edges report, and what workers write while Postgres is away",
		Subjects:    []string{names.JournalOf(region)},
		Retention:   jetstream.LimitsPolicy,
		MaxAge:      journalAge,
		Storage:     jetstream.FileStorage,
		Duplicates:  journalDuplicates,
		DenyDelete:  true,
	}
}

// ensureStream creates the stream, or sets only what the contract needs on the one
// that is there.
func (c *Conn) ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, replicas int) error {
	return c.persist(ctx, func() error {
		st, err := js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			want.Replicas = max(replicas, 1)
			_, err = js.CreateStream(ctx, want)
			return err
		}
		if err != nil {
			return err
		}
		have := st.CachedInfo().Config
		next := have
		next.MaxMsgsPerSubject = want.MaxMsgsPerSubject
		next.Duplicates = want.Duplicates
		for _, s := range want.Subjects {
			if !slices.Contains(next.Subjects, s) {
				next.Subjects = append(slices.Clone(next.Subjects), s)
			}
		}
		for _, s := range want.Sources {
			if !slices.ContainsFunc(next.Sources, func(o *jetstream.StreamSource) bool { return o.Name == s.Name }) {
				next.Sources = append(slices.Clone(next.Sources), s)
			}
		}
		if replicas > 0 {
			next.Replicas = replicas
		}
		if reflect.DeepEqual(have, next) {
			return nil
		}
		_, err = js.UpdateStream(ctx, next)
		return err
	})
}

func (c *Conn) ensureBucket(ctx context.Context, bucket string, replicas int) error {
	return c.persist(ctx, func() error {
		kv, err := c.js.KeyValue(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = c.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
				Bucket: bucket, History: 1, Storage: jetstream.FileStorage, Replicas: max(replicas, 1),
			})
			return err
		}
		if err != nil {
			return err
		}
		st, err := kv.Status(ctx)
		if err != nil {
			return err
		}
		cfg := st.Config()
		if replicas == 0 || cfg.Replicas == replicas {
			return nil
		}
		cfg.Replicas = replicas
		_, err = c.js.UpdateKeyValue(ctx, cfg)
		return err
	})
}

// persist repeats what may fail because another process does the same now, or because
// the server has only just started.
func (c *Conn) persist(ctx context.Context, do func() error) error {
	var b backoff
	var err error
	for range ensureAttempts {
		if err = c.WaitConnected(ctx); err != nil {
			return requestError(ctx, err)
		}
		if err = do(); err == nil {
			return nil
		}
		if !b.wait(ctx) {
			break
		}
	}
	return err
}
