package admission

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// Bounds of an item.
const (
	maxSignAge = 1000 * time.Hour
	// maxClockOff is how far a question's id may be from our clock: a worker refuses
	// 5 minutes already, and there are partitions for some days only.
	maxClockOff = 24 * time.Hour
)

// Check refuses an item that no ledger can store, or that would bloat a row,
// before it costs its batch a split. The error wraps ErrBadItem. What only the
// database can tell (a NUL in a text) is found out there.
func Check(it *Item) error {
	switch {
	case it.Open != nil && it.Audit == nil && it.Sign == nil:
		o := it.Open
		if o.Seat <= 0 || o.Lease < 0 || o.Session == uuid.Nil || o.Key.IsZero() || o.Subject.IsZero() {
			return fmt.Errorf("%w: an open needs session, key, subject and times", ErrBadItem)
		}
		if err := checkLimits(o); err != nil {
			return err
		}
		return checkRecord(&o.Record, o.Device)
	case it.Audit != nil && it.Open == nil && it.Sign == nil:
		return checkRecord(&it.Audit.Record)
	case it.Sign != nil && it.Open == nil && it.Audit == nil:
		if it.Sign.Age < 0 || it.Sign.Age > maxSignAge {
			return fmt.Errorf("%w: sign of life %s old", ErrBadItem, it.Sign.Age)
		}
		return nil
	}
	return fmt.Errorf("%w: exactly one of open, audit and sign", ErrBadItem)
}

// Bounds of an open's limits, and of the keys it counts under.
const maxLimits, maxCounted = 16, 24

func checkLimits(o *Open) error {
	if len(o.More) > maxLimits || len(o.Counted) > maxCounted || slices.ContainsFunc(o.Counted, access.Key.IsZero) {
		return fmt.Errorf("%w: %d limits, %d keys to count under", ErrBadItem, len(o.More), len(o.Counted))
	}
	for i := range o.More {
		l := &o.More[i]
		if l.Subject != o.Subject && !slices.Contains(o.Counted, l.Subject) || l.Sessions < 0 || l.Cut < 0 {
			return fmt.Errorf("%w: limit %s counts what the seat does not", ErrBadItem, l.Name)
		}
	}
	return nil
}

func checkRecord(r *Record, more ...string) error {
	if r.ID.Version() != 7 {
		return fmt.Errorf("%w: question id is not a UUIDv7", ErrBadItem)
	}
	if off := time.Since(IDTime(r.ID)).Abs(); off > maxClockOff {
		return fmt.Errorf("%w: question id is %s off our clock", ErrBadItem, off.Round(time.Hour))
	}
	for _, t := range append(more, r.Region, r.Edge, r.Node, r.Caller, r.Stream, r.Realm, r.User, r.UserAgent) {
		if len(t) > access.MaxPath || !utf8.ValidString(t) {
			return fmt.Errorf("%w: text of %d bytes, or not UTF-8", ErrBadItem, len(t))
		}
	}
	return nil
}

// IDTime is the time in a UUIDv7, to the millisecond: the time of its audit row.
func IDTime(id uuid.UUID) time.Time {
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	return time.UnixMilli(ms).UTC()
}
