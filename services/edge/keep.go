package edge

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/keep"
)

const (
	// keepEvery is how often what has changed is written to the file.
	keepEvery = time.Second
	// keepBatch changes are written at once.
	keepBatch = 4096
	// settleTime is how long questions wait after a start for what was ended meanwhile.
	settleTime = time.Second
)

var (
	policyKey = []byte("projection")
	lifeKey   = []byte("alive")
)

// keeper writes to the file beside the edge what it needs after a restart: sessions, the policy, and
// the kills, bans and overrides that still hold.
type keeper struct {
	store *keep.Store // nil: nothing is kept

	mu      sync.Mutex // guards all below; taken last
	changes []keep.Change
	gone    []access.Key
	failing bool
}

// openKeeper opens the file that the configuration names, if it does. A file that cannot be read
// is put aside; one that cannot be opened at all is an error, since somebody relies on it.
func (s *Service) openKeeper(ctx context.Context) error {
	if s.cfg.State == "" {
		return nil
	}
	seal, err := s.keyer.Sealer("edge state")
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	store, aside, err := keep.Open(s.cfg.State, seal)
	if err != nil {
		return fmt.Errorf("edge: state: %w", err)
	}
	if aside != "" {
		s.log.ErrorContext(ctx, "the file beside the edge was damaged and is put aside, a new one is begun",
			slog.String(telemetry.File, aside))
	}
	s.keeper.store = store
	s.table.gone = s.keeper.forget
	return s.journal.keepIn(store)
}

// closeKeeper is called when nobody writes any more.
func (s *Service) closeKeeper() error {
	if s.keeper.store == nil {
		return nil
	}
	return s.keeper.store.Close()
}

// forget removes a session that is over.
func (k *keeper) forget(key access.Key) {
	if k.store == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = append(k.gone, key)
}

// projection keeps the policy that is in force here.
func (k *keeper) projection(p *usherv1.Projection) { k.note(keep.Policy, policyKey, p) }

// order keeps a kill or eviction that bars a key, or a ban or override, or its end.
func (k *keeper) order(m *usherv1.Control) { k.note(keep.Orders, orderKey(m), m) }

func orderKey(m *usherv1.Control) []byte {
	if d := m.GetDirective(); d != nil {
		return append([]byte("d"), d.GetId()...)
	}
	return append([]byte("k"), m.GetSessionKey()...)
}

func (k *keeper) note(b keep.Bucket, key []byte, m proto.Message) {
	if k.store == nil {
		return
	}
	raw, err := proto.Marshal(m)
	if err != nil { // it came as protobuf
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes = append(k.changes, keep.Change{Bucket: b, Key: key, Value: raw})
}

// take gives what is to be written besides sessions: ends of sessions first, since their keys may be in use again.
func (k *keeper) take() []keep.Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]keep.Change, 0, len(k.gone)+len(k.changes))
	for _, key := range k.gone {
		list = append(list, keep.Change{Bucket: keep.Sessions, Key: key[:]})
	}
	list = append(list, k.changes...)
	k.changes, k.gone = nil, nil
	return list
}

// back takes again what could not be written.
func (k *keeper) back(list []keep.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes = append(list, k.changes...)
}

// keepOn writes what has changed until ctx ends, and then once more.
func (s *Service) keepOn(ctx context.Context) error {
	if s.keeper.store == nil {
		return nil
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.keepRound(ctx)
		case <-ctx.Done():
			s.keepRound(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// keepRound writes what has changed since the last one, and that the edge is alive.
func (s *Service) keepRound(ctx context.Context) {
	w, list := s.wall(), s.keeper.take()
	for _, c := range list {
		if c.Bucket == keep.Sessions {
			s.rekeep(access.Key(c.Key))
		}
	}
	alive := binary.BigEndian.AppendUint64(nil, uint64(w.at.UnixMilli()))
	err := s.keeper.write(append(list, keep.Change{Bucket: keep.Life, Key: lifeKey, Value: alive}))
	if err != nil {
		s.keeper.back(list)
	} else {
		err = s.keepSessions(w)
	}
	s.keeper.told(ctx, s, err)
}

// rekeep has a session written that has come under a key whose end is to be written first.
func (s *Service) rekeep(k access.Key) {
	if ses := s.table.get(k); ses != nil {
		ses.kept.Store(false)
	}
}

// keepSessions writes the sessions whose grants the file has not. A zapped one is not worth it: only its
// last requests are answered.
func (s *Service) keepSessions(w wall) (err error) {
	var list []keep.Change
	var written []*session
	flush := func() {
		if err = s.keeper.write(list); err != nil {
			for _, ses := range written {
				ses.kept.Store(false)
			}
		}
		list, written = list[:0], written[:0]
	}
	s.table.each(func(ses *session) {
		if err != nil || ses.zapped.Load() != 0 || ses.kept.Swap(true) {
			return
		}
		raw, e := proto.Marshal(ses.message(w))
		if e != nil {
			return // text that is not UTF-8; the edge cleans all of it
		}
		list, written = append(list, keep.Change{Bucket: keep.Sessions, Key: ses.key[:], Value: raw}), append(written, ses)
		if len(list) == keepBatch {
			flush()
		}
	})
	if err == nil {
		flush()
	}
	return err
}

func (k *keeper) write(list []keep.Change) error {
	if len(list) == 0 {
		return nil
	}
	return k.store.Apply(list)
}

// told says once that writing fails, and that it works again.
func (k *keeper) told(ctx context.Context, s *Service, err error) {
	switch {
	case err != nil && !k.failing:
		s.log.ErrorContext(ctx, "the file beside the edge cannot be written: a restart would forget what has changed", slog.Any(telemetry.Error, err))
	case err == nil && k.failing:
		s.log.InfoContext(ctx, "the file beside the edge is written again")
	}
	k.failing = err != nil
	s.metrics.keepFault(err != nil)
}
