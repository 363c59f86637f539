package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// JournalBatch is a run of entries of one region's journal, in order.
type JournalBatch struct {
	// Stream and Incarnation (when the stream was created, UTC, whole microseconds)
	// name the position; another incarnation counts from 1 again.
	Stream      string
	Incarnation time.Time
	// After is the position that was stored when this batch began, Last the one to
	// store with it: in the same transaction, if After still stands there.
	After, Last uint64
	Entries     []Entry
}

// Entry is one entry of a journal.
type Entry struct {
	Seq uint64
	// Region, Edge and Kind come from the subject, as NATS's permissions enforce it.
	Region, Edge, Kind string
	// Entry is nil when Bad is set.
	Entry *usherv1.JournalEntry
	// Bad wraps ErrMalformed when the entry cannot be read. It is handed on, so that
	// its owner can count it and go past it.
	Bad error
}

// PositionFunc returns the stored position in this incarnation of the region's
// journal, 0 if none is stored.
type PositionFunc = func(incarnation time.Time) (seq uint64, err error)

// ReadJournal reads a region's journal, and in the hub those of all regions, from the stored position on and gives it to f
// in batches of at most batch entries, at the latest wait after the first of them
// came. It goes on when f returned nil. It repeats the batch while f fails, waiting
// at most a second between; on ErrMoved it asks for the position again. After every
// fault of NATS it asks again too: the stored position is the only one that counts.
// Only when the stream is shorter than that are entries given again that were stored
// before (Last is then less than After): their ids must keep them from being stored
// twice.
// It returns nil when ctx ends, and an error only for arguments that cannot work.
func (c *Conn) ReadJournal(ctx context.Context, region string, from PositionFunc, batch int, wait time.Duration,
	f func(context.Context, JournalBatch) error,
) error {
	if err := names.CheckToken("region", region); err != nil {
		return err
	}
	if batch < 1 {
		return fmt.Errorf("journal batch of %d entries", batch)
	}
	r := &reader{c: c, stream: names.JournalStream(region), from: from, batch: batch, wait: wait, f: f}
	c.keep(ctx, "journal", r.read)
	return nil
}

type reader struct {
	c      *Conn
	stream string
	from   PositionFunc
	batch  int
	wait   time.Duration
	f      func(context.Context, JournalBatch) error

	stored uint64
}

func (r *reader) read(ctx context.Context, opened func()) error {
	t, err := r.c.openTail(ctx, opening{js: r.c.js, stream: r.stream, batch: r.batch, start: r.start})
	if err != nil {
		return err
	}
	defer t.close()
	opened()
	for {
		b := JournalBatch{Stream: r.stream, Incarnation: t.incarnation, After: r.stored}
		if err := r.collect(ctx, t, &b); err != nil {
			return err
		}
		if err := r.give(ctx, b); err != nil {
			return err
		}
		r.stored = b.Last
	}
}

// start asks for the stored position and tells when it doesn't fit the stream.
func (r *reader) start(ctx context.Context, st jetstream.Stream) (uint64, error) {
	info := st.CachedInfo()
	incarnation := incarnationOf(info)
	stored, err := r.from(incarnation)
	if err != nil {
		return 0, fmt.Errorf("position of %s: %w", r.stream, err)
	}
	if stored > info.State.LastSeq {
		// Most likely another reader has advanced since we looked at the stream.
		if info, err = st.Info(ctx); err != nil {
			return 0, fmt.Errorf("stream %s: %w", r.stream, err)
		}
		if !incarnationOf(info).Equal(incarnation) {
			return 0, fmt.Errorf("stream %s: %w", r.stream, errRecreated)
		}
	}
	r.stored = stored
	first, last := info.State.FirstSeq, info.State.LastSeq
	if stored > last {
		// The server lost writes that it had acknowledged (power loss without
		// SyncAlways) and gave their numbers to new entries, nobody knows from where
		// on. All are read again; their ids keep those stored from being stored twice.
		r.c.log.Error("journal is shorter than the stored position", slog.String(telemetry.NATSStream, r.stream),
			slog.Uint64(telemetry.Sequence, stored), slog.Uint64(telemetry.Lost, stored-last))
		return 1, nil
	}
	if stored > 0 && first > stored+1 {
		r.c.log.Error("journal entries expired unread", slog.String(telemetry.NATSStream, r.stream),
			slog.Uint64(telemetry.Sequence, stored), slog.Uint64(telemetry.Lost, first-stored-1))
	}
	return stored + 1, nil
}

// collect waits for one entry, and then for more until the batch is full or wait is over.
func (r *reader) collect(ctx context.Context, t *tail, b *JournalBatch) error {
	var enough <-chan time.Time
	for len(b.Entries) < r.batch {
		select {
		case e, ok := <-t.out:
			if !ok {
				return t.err
			}
			b.Entries = append(b.Entries, decodeEntry(e.seq, e.Subject(), e.Data()))
			b.Last = e.seq
			if enough == nil {
				timer := time.NewTimer(r.wait)
				defer timer.Stop()
				enough = timer.C
			}
		case <-enough:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// give repeats the batch until its owner has taken it.
func (r *reader) give(ctx context.Context, b JournalBatch) error {
	var wait backoff
	var said seldom
	for {
		err := r.f(ctx, b)
		if err == nil || errors.Is(err, ErrMoved) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if said.allow() {
			r.c.log.WarnContext(ctx, "journal batch was not stored", slog.String(telemetry.NATSStream, r.stream),
				slog.Uint64(telemetry.Sequence, b.After), slog.Int(telemetry.Count, len(b.Entries)), slog.Any(telemetry.Error, err))
		}
		if !wait.wait(ctx) {
			return context.Cause(ctx)
		}
	}
}

// decodeEntry never fails: what cannot be read says so.
func decodeEntry(seq uint64, subject string, data []byte) Entry {
	out := Entry{Seq: seq}
	tokens := strings.Split(subject, ".")
	if len(tokens) != strings.Count(names.Journal("r", "e", "k"), ".")+1 {
		out.Bad = fmt.Errorf("subject of %d tokens: %w", len(tokens), ErrMalformed)
		return out
	}
	tokens = tokens[len(tokens)-3:]
	out.Region, out.Edge, out.Kind = tokens[0], tokens[1], tokens[2]
	m := new(usherv1.JournalEntry)
	switch err := proto.Unmarshal(data, m); {
	case err != nil:
		out.Bad = fmt.Errorf("%w: %w", ErrMalformed, err)
	case m.GetId() == "" || m.GetWhat() == nil:
		out.Bad = fmt.Errorf("entry without id or content: %w", ErrMalformed)
	default:
		out.Entry = m
	}
	return out
}
