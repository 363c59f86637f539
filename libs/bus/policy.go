package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// casAttempts bounds the retries when others write the same key at the same time.
const casAttempts = 20

// errLost ends a compare-and-set that a newer value has won.
var errLost = errors.New("a newer value is there")

// PutPolicy brings a revision into force: the policy for the workers, then a
// projection for each edge (keys as in schemas/nats), then it removes the projections
// of edges that are in none any more. It never replaces a newer revision (ErrStale),
// not even in part, and putting the same one again completes what was left undone.
func (c *Conn) PutPolicy(ctx context.Context, p *usherv1.PolicyRevision, projections map[string]*usherv1.Projection) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	if err := c.WaitConnected(ctx); err != nil {
		return requestError(ctx, err)
	}
	policies, err := c.hub.KeyValue(ctx, names.PolicyBucket)
	if err != nil {
		return fmt.Errorf("bucket %s: %w", names.PolicyBucket, err)
	}
	views, err := c.hub.KeyValue(ctx, names.ProjectionBucket)
	if err != nil {
		return fmt.Errorf("bucket %s: %w", names.ProjectionBucket, err)
	}
	if _, err := putNewest(ctx, policies, names.PolicyKey, p, supersedes(p)); err != nil {
		if errors.Is(err, errLost) {
			return fmt.Errorf("revision %d: %w", p.GetRevision(), ErrStale)
		}
		return fmt.Errorf("storing policy revision %d: %w", p.GetRevision(), err)
	}
	made, err := putProjections(ctx, views, projections)
	if err != nil {
		return err
	}
	stored, err := current(ctx, policies)
	if err != nil {
		return err
	}
	if stored != p.GetRevision() {
		// A newer revision came while we wrote. What it has, it overwrites; what it
		// doesn't have and we made after its clean-up, only we can take away.
		return errors.Join(unmake(ctx, views, made), fmt.Errorf("revision %d: %w", p.GetRevision(), ErrStale))
	}
	return purgeVanished(ctx, views, projections, p.GetRevision())
}

// supersedes says whether the policy may stand in place of the stored bytes.
func supersedes(p *usherv1.PolicyRevision) func([]byte) (bool, error) {
	return func(stored []byte) (bool, error) {
		old := new(usherv1.PolicyRevision)
		if err := proto.Unmarshal(stored, old); err != nil {
			return true, nil // not ours, and nobody can use it
		}
		if old.GetRevision() == p.GetRevision() {
			if old.GetSource() != p.GetSource() {
				return false, errLost
			}
			return false, nil
		}
		if old.GetRevision() > p.GetRevision() {
			return false, errLost
		}
		return true, nil
	}
}

// putProjections writes the edges' own projections before the one for any, so that an
// edge never falls through to a projection that was made without it.
func putProjections(ctx context.Context, kv jetstream.KeyValue, projections map[string]*usherv1.Projection) (made map[string]uint64, err error) {
	made = make(map[string]uint64)
	keys := make([]string, 0, len(projections))
	for k := range projections {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if (a == names.AnyProjectionKey) != (b == names.AnyProjectionKey) {
			if a == names.AnyProjectionKey {
				return 1
			}
			return -1
		}
		if a < b {
			return -1
		}
		return 1
	})
	for _, key := range keys {
		p := projections[key]
		created, err := putNewest(ctx, kv, key, p, func(stored []byte) (bool, error) {
			old := new(usherv1.Projection)
			if err := proto.Unmarshal(stored, old); err != nil {
				return true, nil
			}
			return old.GetRevision() < p.GetRevision(), nil
		})
		if err != nil {
			return made, fmt.Errorf("storing projection %s: %w", key, err)
		}
		if created > 0 {
			made[key] = created
		}
	}
	return made, nil
}

// putNewest writes value under key if nothing stands there or newer agrees to replace
// what does. It returns the KV revision if it made the key, else 0.
func putNewest(ctx context.Context, kv jetstream.KeyValue, key string, value proto.Message, newer func(stored []byte) (bool, error)) (created uint64, err error) {
	data, err := proto.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var b backoff
	for range casAttempts {
		old, err := kv.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			created, err = kv.Create(ctx, key, data)
		case err != nil:
			return 0, err
		default:
			ok, lost := newer(old.Value())
			if !ok {
				return 0, lost
			}
			_, err = kv.Update(ctx, key, data, old.Revision())
		}
		if err == nil {
			return created, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return 0, err
		}
		if !b.wait(ctx) {
			return 0, requestError(ctx, ctx.Err())
		}
	}
	return 0, errors.New("too many others write the same key")
}

// current is the number of the revision in force.
func current(ctx context.Context, kv jetstream.KeyValue) (int64, error) {
	e, err := kv.Get(ctx, names.PolicyKey)
	if err != nil {
		return 0, fmt.Errorf("reading policy in force: %w", err)
	}
	p := new(usherv1.PolicyRevision)
	if err := proto.Unmarshal(e.Value(), p); err != nil {
		return 0, fmt.Errorf("policy in force: %w: %w", ErrMalformed, err)
	}
	return p.GetRevision(), nil
}

// unmake removes keys that we made and nobody has written since.
func unmake(ctx context.Context, kv jetstream.KeyValue, made map[string]uint64) error {
	var errs []error
	for key, rev := range made {
		err := kv.Purge(ctx, key, jetstream.LastRevision(rev))
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			errs = append(errs, fmt.Errorf("removing projection %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// purgeVanished removes the projections of edges that the revision doesn't name.
func purgeVanished(ctx context.Context, kv jetstream.KeyValue, keep map[string]*usherv1.Projection, revision int64) error {
	keys, err := kv.Keys(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		return fmt.Errorf("listing projections: %w", err)
	}
	gone := make(map[string]uint64)
	for _, key := range keys {
		if _, ok := keep[key]; ok {
			continue
		}
		e, err := kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading projection %s: %w", key, err)
		}
		p := new(usherv1.Projection)
		// One with a higher number belongs to a revision newer than ours.
		if proto.Unmarshal(e.Value(), p) != nil || p.GetRevision() <= revision {
			gone[key] = e.Revision()
		}
	}
	return unmake(ctx, kv, gone)
}
