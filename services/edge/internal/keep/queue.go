package keep

import (
	"encoding/binary"
	"errors"

	"go.etcd.io/bbolt"
)

// MaxQueue is how many entries a queue holds; a row takes about half a KiB.
const MaxQueue = 128 << 10

// ErrFull means that a queue holds MaxQueue entries.
var ErrFull = errors.New("no room for more in the file")

// Queue is one lane of the journal: what waits to be reported, in its order. It belongs to one
// goroutine; different lanes may be used at the same time.
type Queue struct {
	store *Store
	lane  byte
	next  uint64
	n     int
}

// Queue opens a lane with what it holds from before.
func (s *Store) Queue(lane byte) (*Queue, error) {
	q := &Queue{store: s, lane: lane}
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(Journal)).Cursor()
		for k, _ := c.Seek([]byte{lane}); len(k) == 9 && k[0] == lane; k, _ = c.Next() {
			q.n++
			q.next = binary.BigEndian.Uint64(k[1:]) + 1
		}
		return nil
	})
	return q, err
}

func (q *Queue) key(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{q.lane}, n) }

// Len is how many entries it holds.
func (q *Queue) Len() int { return q.n }

// Put adds entries behind the others. When it returns they survive a loss of power.
func (q *Queue) Put(entries ...[]byte) error {
	if q.n+len(entries) > MaxQueue {
		return ErrFull
	}
	changes := make([]Change, len(entries))
	for i, e := range entries {
		changes[i] = Change{Journal, q.key(q.next + uint64(i)), e}
	}
	if err := q.store.Add(changes...); err != nil {
		return err
	}
	q.next += uint64(len(entries))
	q.n += len(entries)
	return nil
}

// First reads up to most entries from the front. One that cannot be opened is nil.
func (q *Queue) First(most int) (entries [][]byte, err error) {
	err = q.store.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(Journal)).Cursor()
		for k, sealed := c.Seek([]byte{q.lane}); len(k) == 9 && k[0] == q.lane && len(entries) < most; k, sealed = c.Next() {
			value, _ := q.store.opened(Journal, k, sealed)
			entries = append(entries, value)
		}
		return nil
	})
	return entries, err
}

// Drop removes n entries from the front.
func (q *Queue) Drop(n int) error {
	err := q.store.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(Journal))
		for range n {
			k, _ := b.Cursor().Seek([]byte{q.lane})
			if len(k) != 9 || k[0] != q.lane {
				return nil
			}
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		q.n = max(q.n-n, 0)
	}
	return err
}
