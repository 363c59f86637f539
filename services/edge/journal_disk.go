package edge

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/keep"
)

// keepIn has entries wait in the file while they cannot be reported, and takes up those that have
// waited there since before the start.
func (j *journal) keepIn(store *keep.Store) error {
	for i := range j.disk {
		q, err := store.Queue(byte(i))
		if err != nil {
			return err
		}
		j.disk[i] = q
		j.waiting.Add(int64(q.Len()))
	}
	return nil
}

// reportKept reports a lane's entries until ctx ends; what is left then waits in the file. An entry
// stays in memory for one attempt, and as long as the file takes none.
func (j *journal) reportKept(ctx, drain context.Context, lane <-chan *usherv1.JournalEntry, q *keep.Queue) {
	retry := time.NewTicker(j.retry)
	defer retry.Stop()
	for {
		if q.Len() == 0 {
			select {
			case e := <-lane:
				j.putOrKeep(drain, e, lane, q)
			case <-ctx.Done():
				j.drain(drain, lane, q)
				return
			}
			continue
		}
		if len(lane) > laneDepth/2 {
			j.toDisk(drain, <-lane, lane, q) // or what comes in would be dropped while a long outage is reported
		}
		if j.fromDisk(ctx, q) {
			continue
		}
		select {
		case e := <-lane: // behind those on disk
			j.toDisk(drain, e, lane, q)
		case <-retry.C:
		case <-ctx.Done():
			j.drain(drain, lane, q)
			return
		}
	}
}

// drain ends a lane: everybody who adds has stopped.
func (j *journal) drain(ctx context.Context, lane <-chan *usherv1.JournalEntry, q *keep.Queue) {
	for {
		select {
		case e := <-lane:
			if q.Len() > 0 {
				j.toDisk(ctx, e, lane, q)
				continue
			}
			j.putOrKeep(ctx, e, lane, q)
		default:
			j.waiting.Add(-int64(q.Len())) // they are not lost
			return
		}
	}
}

func (j *journal) putOrKeep(ctx context.Context, e *usherv1.JournalEntry, lane <-chan *usherv1.JournalEntry, q *keep.Queue) {
	if j.once(ctx, e, diskTimeout) != nil {
		j.toDisk(ctx, e, lane, q)
	}
}

// toDisk writes an entry and what waits behind it to the file. Where that fails it is
// reported from memory, however long that takes.
func (j *journal) toDisk(ctx context.Context, e *usherv1.JournalEntry, lane <-chan *usherv1.JournalEntry, q *keep.Queue) {
	list := []*usherv1.JournalEntry{e}
	for len(lane) > 0 && len(list) < diskBatch {
		list = append(list, <-lane)
	}
	raw := make([][]byte, 0, len(list))
	for _, e := range list {
		text, err := proto.Marshal(e)
		if err != nil { // text that is not UTF-8; the edge cleans all of it
			j.log.ErrorContext(ctx, "journal entry dropped", slog.Any(telemetry.Error, err))
			j.waiting.Add(-1)
			j.dropped.Add(1)
			continue
		}
		raw = append(raw, text)
	}
	err := q.Put(raw...)
	if err == nil {
		return
	}
	j.log.ErrorContext(ctx, "journal entries cannot be written to the file beside the edge, they wait in memory",
		slog.Int(telemetry.Count, len(list)), slog.Any(telemetry.Error, err))
	for _, e := range list {
		j.put(ctx, e)
	}
}

// fromDisk reports the first entries of the file; false means that it is not the time for it.
func (j *journal) fromDisk(ctx context.Context, q *keep.Queue) bool {
	list, err := q.First(diskBatch)
	if err != nil {
		j.log.ErrorContext(ctx, "journal entries cannot be read from the file beside the edge", slog.Any(telemetry.Error, err))
		return false
	}
	done := 0
	for _, raw := range list {
		e := new(usherv1.JournalEntry)
		if raw == nil || proto.Unmarshal(raw, e) != nil {
			j.log.ErrorContext(ctx, "journal entry dropped: it cannot be read from the file beside the edge")
			j.waiting.Add(-1)
			j.dropped.Add(1)
		} else if j.once(ctx, e, putTimeout) != nil {
			break
		}
		done++
	}
	if done == 0 {
		return false
	}
	if err := q.Drop(done); err != nil {
		// They are reported again: that changes nothing.
		j.waiting.Add(int64(done))
		j.log.ErrorContext(ctx, "journal entries cannot be removed from the file beside the edge", slog.Any(telemetry.Error, err))
		return false
	}
	return true
}
