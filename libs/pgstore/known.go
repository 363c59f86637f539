package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
)

// Known is decide.Known: a middleware's last word on a viewer.
type Known struct {
	store *Store
	log   *slog.Logger
	queue chan word
}

var _ decide.Known = (*Known)(nil)

type word struct {
	check string
	who   access.Key
	decide.Word
}

// knownQueue bounds the words that wait to be written; more are dropped, since the next answer repeats them.
const knownQueue = 8192

// Known keeps last words in this store; they are written while Run runs.
func (s *Store) Known() *Known {
	return &Known{store: s, log: s.log, queue: make(chan word, knownQueue)}
}

const knownSQL = `
SELECT allowed, realm, user_id, session_name, sessions, at
  FROM usher.known
 WHERE check_name = @check AND who = @who`

// Allowed is a check's last word on somebody, false if it never had one.
func (k *Known) Allowed(ctx context.Context, check string, who access.Key) (decide.Word, bool, error) {
	var w decide.Word
	err := k.store.pool.QueryRow(ctx, knownSQL, pgx.NamedArgs{"check": check, "who": idOf(who)}).
		Scan(&w.Allowed, &w.Realm, &w.User, &w.SessionName, &w.Sessions, &w.At)
	if errors.Is(err, pgx.ErrNoRows) {
		return decide.Word{}, false, nil
	}
	if err != nil {
		return decide.Word{}, false, fmt.Errorf("reading a check's last word: %w", unavailable(err))
	}
	return w, true, nil
}

// Remember queues a check's word; it does not block.
func (k *Known) Remember(check string, who access.Key, w decide.Word) {
	select {
	case k.queue <- word{check: check, who: who, Word: w}:
	default:
	}
}

// The clock decides between two workers' words, so that an older one never replaces a newer. A no that names nobody leaves
// whose token it was: an override for that account must find him on the night on which the portal refuses everybody.
const rememberSQL = `
INSERT INTO usher.known AS k (check_name, who, allowed, realm, user_id, session_name, sessions, at)
SELECT DISTINCT ON (c, w) c, w, a, r, u, n, s, t
  FROM unnest(@checks::text[], @who::uuid[], @allowed::boolean[], @realms::text[], @users::text[], @names::text[], @sessions::integer[], @at::timestamptz[])
       AS x(c, w, a, r, u, n, s, t)
 ORDER BY c, w, t DESC
ON CONFLICT (check_name, who) DO UPDATE
   SET allowed = EXCLUDED.allowed, at = EXCLUDED.at,
       realm = CASE WHEN EXCLUDED.allowed OR EXCLUDED.user_id <> '' THEN EXCLUDED.realm ELSE k.realm END,
       user_id = CASE WHEN EXCLUDED.allowed OR EXCLUDED.user_id <> '' THEN EXCLUDED.user_id ELSE k.user_id END,
       session_name = CASE WHEN EXCLUDED.allowed OR EXCLUDED.user_id <> '' THEN EXCLUDED.session_name ELSE k.session_name END,
       sessions = CASE WHEN EXCLUDED.allowed OR EXCLUDED.user_id <> '' THEN EXCLUDED.sessions ELSE k.sessions END
 WHERE k.at < EXCLUDED.at`

// Run writes what is remembered, in batches, until ctx ends, and then what is still queued.
func (k *Known) Run(ctx context.Context) error {
	for {
		var batch []word
		select {
		case w := <-k.queue:
			batch = append(batch, w)
		case <-ctx.Done():
			select {
			case w := <-k.queue:
				batch = append(batch, w)
			default:
				return nil
			}
		}
		for len(batch) < 512 && len(k.queue) > 0 {
			batch = append(batch, <-k.queue)
		}
		if err := k.write(context.WithoutCancel(ctx), batch); err != nil {
			k.log.WarnContext(ctx, "a check's last words could not be written", slog.Int("words", len(batch)), slog.Any("error", err))
		}
	}
}

func (k *Known) write(ctx context.Context, batch []word) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n := len(batch)
	nameBatch(batch)
	checks, realms, users, names := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	who := make([][16]byte, n)
	allowed, sessions, at := make([]bool, n), make([]int32, n), make([]time.Time, n)
	for i, w := range batch {
		checks[i], who[i], allowed[i], users[i] = w.check, w.who, w.Allowed, w.User
		realms[i], names[i], sessions[i], at[i] = w.Realm, w.SessionName, int32(w.Sessions), w.At
	}
	_, err := k.store.pool.Exec(ctx, rememberSQL, pgx.NamedArgs{
		"checks": checks, "who": who, "allowed": allowed, "realms": realms, "users": users, "names": names, "sessions": sessions, "at": at})
	return unavailable(err)
}

// nameBatch does within a batch what rememberSQL does between rows: a no that names nobody keeps the name of the word before it.
func nameBatch(batch []word) {
	type of struct {
		check string
		who   access.Key
	}
	named := make(map[of]decide.Word, len(batch))
	for i := range batch {
		w := &batch[i]
		k := of{w.check, w.who}
		if before, ok := named[k]; ok && !w.Allowed && w.User == "" {
			w.Realm, w.User, w.SessionName, w.Sessions = before.Realm, before.User, before.SessionName, before.Sessions
		}
		if w.Allowed || w.User != "" {
			named[k] = w.Word
		}
	}
}
