package bus

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// Journal is where one edge or worker reports, in its own region.
type Journal struct {
	c            *Conn
	region, edge string
}

// Journal returns the journal of a region for entries of the named edge or worker.
// The names are checked by Put.
func (c *Conn) Journal(region, edge string) *Journal {
	return &Journal{c: c, region: region, edge: edge}
}

// Put stores an entry and returns nil once the stream has acknowledged it. Putting an
// entry with the same id again within five minutes stores nothing more. Errors are
// ErrNoStream, ErrTimeout, ErrDisconnected, ErrMalformed or NATS's own; the entry may
// be stored all the same, so put it again.
func (j *Journal) Put(ctx context.Context, kind string, e *usherv1.JournalEntry) error {
	for what, name := range map[string]string{"region": j.region, "edge": j.edge, "journal kind": kind} {
		if err := names.CheckToken(what, name); err != nil {
			return err
		}
	}
	if e.GetId() == "" {
		return fmt.Errorf("journal entry without an id: %w", ErrMalformed)
	}
	data, err := proto.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal entry: %w: %w", ErrMalformed, err)
	}
	_, err = j.c.publish(ctx, telemetry.SpanSendJournal,
		names.Journal(j.region, j.edge, kind), names.JournalStream(j.region), e.GetId(), data)
	return err
}
