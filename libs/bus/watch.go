package bus

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// watchBatch is how many changes of one key a pull request asks for.
const watchBatch = 16

// WatchPolicy calls f with the revision in force and with each that follows, also
// over reconnects and restarts of the server; never twice with the same. f is called
// one at a time. It returns nil when ctx ends. While the bucket cannot be read or is
// empty, the last revision stands.
func (c *Conn) WatchPolicy(ctx context.Context, f func(*usherv1.PolicyRevision)) error {
	var last *usherv1.PolicyRevision
	c.keep(ctx, "policy", func(ctx context.Context, opened func()) error {
		t, err := c.openTail(ctx, c.keyOpening(names.PolicyBucket, names.PolicyKey))
		if err != nil {
			return err
		}
		defer t.close()
		opened()
		for e := range t.out {
			p := new(usherv1.PolicyRevision)
			if removed(e) || !c.decodeValue(ctx, e, p) || proto.Equal(p, last) {
				continue
			}
			last = p
			f(p)
		}
		return t.err
	})
	return nil
}

// WatchProjection calls f with what the named edge may know of the policy: its own
// projection while there is one, else the one for any edge; then with each change.
// Otherwise it behaves as WatchPolicy. The error tells of a name that cannot be.
func (c *Conn) WatchProjection(ctx context.Context, edge string, f func(*usherv1.Projection)) error {
	if err := names.CheckToken("edge", edge); err != nil {
		return err
	}
	var last *usherv1.Projection
	c.keep(ctx, "projection", func(ctx context.Context, opened func()) error {
		// Two readers of one key each, so that permissions can hold an edge to its own.
		own, err := c.openTail(ctx, c.keyOpening(names.ProjectionBucket, names.EdgeProjectionKey(edge)))
		if err != nil {
			return err
		}
		defer own.close()
		other, err := c.openTail(ctx, c.keyOpening(names.ProjectionBucket, names.AnyProjectionKey))
		if err != nil {
			return err
		}
		defer other.close()
		opened()
		w := pair{c: c, own: key{tail: own}, other: key{tail: other}}
		return w.watch(ctx, func(p *usherv1.Projection) {
			if !proto.Equal(p, last) {
				last = p
				f(p)
			}
		})
	})
	return nil
}

// keyOpening reads one key of a bucket: the value that stands, then each change.
func (c *Conn) keyOpening(bucket, key string) opening {
	return opening{
		js:     c.hub,
		stream: "KV_" + bucket,
		filter: "$KV." + bucket + "." + key,
		batch:  watchBatch,
		start:  func(context.Context, jetstream.Stream) (uint64, error) { return 0, nil },
	}
}

// key is one watched key and the value that stands there, nil if none.
type key struct {
	*tail
	value *usherv1.Projection
	read  uint64 // messages read so far
}

// known says whether what stood there at the start has been read.
func (k *key) known() bool { return k.read >= k.pending }

// pair watches an edge's own key and the one for any edge.
type pair struct {
	c          *Conn
	own, other key
}

func (w *pair) watch(ctx context.Context, f func(*usherv1.Projection)) error {
	for {
		// An edge must not act on the projection for any before it knows that it
		// has none of its own.
		if w.own.known() && w.other.known() {
			if w.own.value != nil {
				f(w.own.value)
			} else if w.other.value != nil {
				f(w.other.value)
			}
		}
		select {
		case e, ok := <-w.own.out:
			if !ok {
				return w.own.err
			}
			w.take(ctx, &w.own, e)
		case e, ok := <-w.other.out:
			if !ok {
				return w.other.err
			}
			w.take(ctx, &w.other, e)
		}
	}
}

func (w *pair) take(ctx context.Context, k *key, e entry) {
	k.read++
	if removed(e) {
		k.value = nil
		return
	}
	p := new(usherv1.Projection)
	if w.c.decodeValue(ctx, e, p) {
		k.value = p
	}
}

// removed says whether the entry is a bucket's mark for a key that was taken away.
func removed(e entry) bool {
	h := e.Headers()
	return h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != ""
}

// decodeValue logs what it cannot read: the value that stood there stays in force.
func (c *Conn) decodeValue(ctx context.Context, e entry, into proto.Message) bool {
	if err := proto.Unmarshal(e.Data(), into); err != nil {
		c.log.ErrorContext(ctx, "malformed value in bucket", slog.String(telemetry.Subject, e.Subject()),
			slog.Any(telemetry.Error, fmt.Errorf("%w: %w", ErrMalformed, err)))
		return false
	}
	return true
}
