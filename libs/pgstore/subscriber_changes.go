package pgstore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

// changesKept is how long rows of changes are kept (oldChangesSQL).
const changesKept = 24 * time.Hour

// Run asks for changes until ctx ends, four times a second: what is remembered is never older
// than that.
func (s *Subscribers) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	since := ""
	for {
		next, err := s.poll(ctx, since)
		switch {
		case err == nil:
			since = next
		case ctx.Err() == nil:
			s.lost(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lost notes that changes cannot be seen. What came in between is found by the next look that
// succeeds: it asks since the last one.
func (s *Subscribers) lost(ctx context.Context, err error) {
	s.mu.Lock()
	// One look may just have been slow; meanwhile each account is looked at.
	s.failures++
	first := s.failures == 2
	s.away = s.failures >= 2
	s.mu.Unlock()
	if first {
		s.store.log.WarnContext(ctx, "changes of subscribers cannot be seen, known ones are answered from memory", slog.Any("error", err))
	}
}

const snapshotSQL = `SELECT pg_current_snapshot()::text`

// The rows that are visible now and were not in the last look's snapshot: a sequence would miss
// what was numbered early and committed late.
const changesSQL = `
SELECT pg_current_snapshot()::text, pg_snapshot_xmax(@since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()),
       c.xid IS NOT NULL, c.realms, c.tokens, c.logins, COALESCE(c.packages, false)
  FROM (VALUES (1)) AS one (row)
  LEFT JOIN usher.subscriber_change c
    ON c.xid >= pg_snapshot_xmin(@since::pg_snapshot)
   AND NOT pg_visible_in_snapshot(c.xid, @since::pg_snapshot)`

// change is one row of usher.subscriber_change.
type change struct {
	realms   []string
	tokens   []pgtype.UUID
	logins   []*string
	packages bool
}

// poll sees what changed since the snapshot, "" for the first look, and forgets it.
func (s *Subscribers) poll(ctx context.Context, since string) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pollWithin)
	defer cancel()
	at := s.now()
	if since == "" {
		if err := s.store.pool.QueryRow(ctx, snapshotSQL).Scan(&next); err != nil {
			return "", fmt.Errorf("reading a snapshot: %w", unavailable(err))
		}
		return next, s.apply(ctx, at, nil, true, true)
	}
	rows, err := s.store.pool.Query(ctx, changesSQL, pgx.NamedArgs{"since": since})
	if err != nil {
		return "", fmt.Errorf("reading changes of subscribers: %w", unavailable(err))
	}
	var changes []change
	var restored, is bool
	var c change
	_, err = pgx.ForEachRow(rows, []any{&next, &restored, &is, &c.realms, &c.tokens, &c.logins, &c.packages}, func() error {
		if is {
			changes = append(changes, c)
		}
		c = change{}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading changes of subscribers: %w", unavailable(err))
	}
	s.mu.RLock()
	// Rows of changes are kept for a day, and another database counts from elsewhere.
	whole := restored || at.Sub(s.confirmed) > changesKept/2
	s.mu.RUnlock()
	return next, s.apply(ctx, at, changes, whole, whole)
}

// apply forgets what has changed; whole doubts all of it. Packages are read first: an account
// is never held against older ones than those it was confirmed with.
func (s *Subscribers) apply(ctx context.Context, at time.Time, changes []change, whole, packages bool) error {
	for _, c := range changes {
		whole = whole || c.realms == nil
		packages = packages || c.packages
	}
	var all map[string]subscriber.Packages
	if packages {
		var err error
		if all, err = s.store.packages(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(changes) > 0 || whole {
		s.generation++
	}
	if whole {
		s.whole = s.generation
	}
	for _, c := range changes {
		for i, realm := range c.realms {
			if i < len(c.tokens) && c.tokens[i].Valid {
				s.known.Invalidate(accountKey{realm: realm, token: access.Key(c.tokens[i].Bytes)})
			}
			if i < len(c.logins) && c.logins[i] != nil {
				s.known.Invalidate(accountKey{realm: realm, login: *c.logins[i]})
			}
		}
	}
	if packages {
		s.packages = all
	}
	s.confirmed, s.seen, s.away, s.failures = at, true, false, 0
	return nil
}

// Packages implements decide.Subscribers.
func (s *Subscribers) Packages(ctx context.Context, realm string) (subscriber.Packages, error) {
	s.mu.RLock()
	all, seen := s.packages, s.seen
	s.mu.RUnlock()
	if seen {
		return all[realm], nil
	}
	all, err := s.store.packages(ctx)
	if err != nil {
		return nil, err
	}
	return all[realm], nil
}

const packageStreamsSQL = `
SELECT realm, name, streams
  FROM usher.package`

// packages reads all packages of all realms. One whose patterns cannot be read holds nothing.
func (s *Store) packages(ctx context.Context) (map[string]subscriber.Packages, error) {
	rows, err := s.pool.Query(ctx, packageStreamsSQL)
	if err != nil {
		return nil, fmt.Errorf("reading packages: %w", unavailable(err))
	}
	all := map[string]subscriber.Packages{}
	var realm, name string
	var streams []string
	_, err = pgx.ForEachRow(rows, []any{&realm, &name, &streams}, func() error {
		p, err := subscriber.NewPackage(name, streams)
		if err != nil {
			s.log.WarnContext(ctx, "package holds nothing, one of its patterns cannot be read", slog.String("package", name), slog.Any("error", err))
			return nil
		}
		if all[realm] == nil {
			all[realm] = subscriber.Packages{}
		}
		all[realm][name] = p
		streams = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading packages: %w", unavailable(err))
	}
	return all, nil
}
