// Package keep is the file beside an edge: what it needs to go on after a restart, also while no
// worker can be reached, and what it decided alone and could not report yet.
//
// Values are sealed under the cluster's key, since sessions hold tokens: whoever has the file alone
// reads nothing in it and can put nothing into it. The file is a bbolt database; a write that was
// acknowledged survives a kill and a loss of power.
package keep

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bucket is a kind of what is kept.
type Bucket string

// The buckets.
const (
	Sessions Bucket = "sessions" // by session key
	Orders   Bucket = "orders"   // control messages that still hold, by what they are about
	Policy   Bucket = "policy"   // the edge's projection
	Journal  Bucket = "journal"  // what waits to be reported, by lane and number
	Life     Bucket = "life"     // when the edge was last alive
)

var buckets = []Bucket{Sessions, Orders, Policy, Journal, Life}

// lockWait is how long the file may be held by a process that is about to end.
const lockWait = 10 * time.Second

// ErrInUse means that another process has the file open.
var ErrInUse = errors.New("another process has it open: every edge needs a file of its own")

// Change writes a value under a key, or removes what is there where Value is nil.
type Change struct {
	Bucket Bucket
	Key    []byte
	Value  []byte
}

// Store is the file. It is safe for concurrent use.
type Store struct {
	db   *bbolt.DB
	seal cipher.AEAD
}

// Open opens the file, or makes it. One that cannot be read is put aside under the name that is
// returned, and a new one begun: an edge with a broken memory is better than none.
func Open(path string, seal cipher.AEAD) (s *Store, aside string, err error) {
	return openWithin(path, seal, lockWait)
}

func openWithin(path string, seal cipher.AEAD, wait time.Duration) (s *Store, aside string, err error) {
	s, err = open(path, seal, wait)
	if err == nil || errors.Is(err, ErrInUse) || !broken(err) {
		return s, "", err
	}
	aside = fmt.Sprintf("%s.broken-%d", path, time.Now().UnixNano())
	if err := os.Rename(path, aside); err != nil {
		return nil, "", fmt.Errorf("putting %s aside: %w", path, err)
	}
	s, err = open(path, seal, wait)
	return s, aside, err
}

// errBroken wraps what bbolt says, or panics with, about a file that it cannot read.
var errBroken = errors.New("the file is damaged")

func broken(err error) bool {
	return errors.Is(err, errBroken) || errors.Is(err, bolterrors.ErrInvalid) ||
		errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch)
}

// open reads the file once from end to end: a damaged page must be found now, not in an outage.
func open(path string, seal cipher.AEAD, wait time.Duration) (s *Store, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errBroken, p)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer func() {
		if err != nil || s == nil {
			_ = db.Close() // the file is given up
		}
	}()
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if err := readable(db); err != nil {
		return nil, err
	}
	return &Store{db: db, seal: seal}, nil
}

// readable walks over all that is there. A page beyond the file's end is a fault, not an error.
func readable(db *bbolt.DB) error {
	return db.View(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			err := tx.Bucket([]byte(b)).ForEach(func(key, value []byte) error {
				if len(key) == 0 || len(value) == 0 {
					return fmt.Errorf("%w: an entry of %s is empty", errBroken, b)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Apply makes all changes, in their order, or none.
func (s *Store) Apply(changes []Change) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return s.apply(tx, changes) })
}

// Add makes changes together with those of others who add at the same time: one write for all.
func (s *Store) Add(changes ...Change) error {
	return s.db.Batch(func(tx *bbolt.Tx) error { return s.apply(tx, changes) })
}

func (s *Store) apply(tx *bbolt.Tx, changes []Change) error {
	for _, c := range changes {
		b := tx.Bucket([]byte(c.Bucket))
		if c.Value == nil {
			if err := b.Delete(c.Key); err != nil {
				return err
			}
			continue
		}
		if err := b.Put(c.Key, s.sealed(c)); err != nil {
			return err
		}
	}
	return nil
}

// sealed binds the value to its place: one that is moved to another key cannot be opened there.
func (s *Store) sealed(c Change) []byte {
	nonce := make([]byte, s.seal.NonceSize(), s.seal.NonceSize()+len(c.Value)+s.seal.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return s.seal.Seal(nonce, nonce, c.Value, place(c.Bucket, c.Key))
}

func place(b Bucket, key []byte) []byte { return append(append([]byte(b), 0), key...) }

// Each gives what a bucket holds, in the order of the keys, which f may keep. Values that cannot be opened, since
// another cluster key sealed them, are removed and counted.
func (s *Store) Each(b Bucket, f func(key, value []byte)) (lost int, err error) {
	var bad []Change
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(b)).ForEach(func(key, sealed []byte) error {
			key = append([]byte(nil), key...)
			value, ok := s.opened(b, key, sealed)
			if !ok {
				bad = append(bad, Change{Bucket: b, Key: key})
				return nil
			}
			f(key, value)
			return nil
		})
	})
	if err != nil || len(bad) == 0 {
		return 0, err
	}
	return len(bad), s.Apply(bad)
}

func (s *Store) opened(b Bucket, key, sealed []byte) ([]byte, bool) {
	n := s.seal.NonceSize()
	if len(sealed) < n {
		return nil, false
	}
	value, err := s.seal.Open(nil, sealed[:n], sealed[n:], place(b, key))
	return value, err == nil
}

// Len is how many entries a bucket holds.
func (s *Store) Len(b Bucket) (n int) {
	_ = s.db.View(func(tx *bbolt.Tx) error { // closed: nothing
		n = tx.Bucket([]byte(b)).Stats().KeyN
		return nil
	})
	return n
}

// Close ends it. Nothing may be called after it.
func (s *Store) Close() error { return s.db.Close() }
