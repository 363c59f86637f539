package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

// ErrBadLines means that a file holds lines that cannot be used, so that nothing was imported.
var ErrBadLines = errors.New("the file holds lines that cannot be used")

const (
	// importBatch is how many lines are taken, and their passwords hashed, at a time.
	importBatch = 256
	// badShown is how many bad lines are kept for the message.
	badShown = 20
)

// Import is how a file of subscribers is taken.
type Import struct {
	Realm string
	Keyer *access.Keyer
	// SkipBad takes the good lines and leaves the others; else one bad line leaves all.
	SkipBad bool
	// Progress is told now and then how many lines were read. May be nil.
	Progress func(lines int)
}

// Imported is what became of a file.
type Imported struct {
	Lines     int                  `json:"lines"`
	Added     int                  `json:"added"`
	Changed   int                  `json:"changed"`
	Unchanged int                  `json:"unchanged"`
	Bad       int                  `json:"bad"`
	BadLines  []subscriber.BadLine `json:"bad_lines"` // the first of them
}

func (r *Imported) bad(b subscriber.BadLine) {
	r.Bad++
	if len(r.BadLines) < badShown {
		r.BadLines = append(r.BadLines, b)
	}
}

const incomingSQL = `
CREATE TEMPORARY TABLE incoming (
  line bigint NOT NULL, user_id text NOT NULL, name text, token uuid, login text, password text, packages text[], sessions integer,
  expires_at timestamptz, networks cidr[], blocked boolean, comment text
) ON COMMIT DROP`

// ImportSubscribers adds and changes subscribers as the file says, in one transaction: all of
// it or, where the error is ErrBadLines or any other, nothing. Columns that the file does not have stay as
// they are; so do tokens and passwords whose field is empty. The same file again changes nothing.
func (s *Store) ImportSubscribers(ctx context.Context, im Import, x *subscriber.Reader) (Imported, error) {
	var r Imported
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, incomingSQL); err != nil {
			return err
		}
		src := &importSource{ctx: ctx, store: s, im: im, csv: x, result: &r}
		names := []string{"line", "user_id", "name", "token", "login", "password", "packages", "sessions", "expires_at", "networks", "blocked", "comment"}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"incoming"}, names, src); err != nil {
			return err
		}
		return mergeSubscribers(ctx, tx, im, x, &r)
	})
	if err != nil && !isRefusal(err) && !errors.Is(err, ErrBadLines) {
		var source *sourceError
		if errors.As(err, &source) {
			return r, source.err
		}
		return r, editError("importing subscribers", err)
	}
	return r, err
}

// importSource gives the lines of the file to COPY. It hashes passwords on all processors.
type importSource struct {
	ctx    context.Context
	store  *Store
	im     Import
	csv    *subscriber.Reader
	result *Imported
	batch  []*subscriber.Row
	hashes []*string // of the batch; nil: none or unchanged
	at     int
	end    bool
	err    error
}

var _ pgx.CopyFromSource = (*importSource)(nil)

// sourceError is what the file's reader said, not Postgres.
type sourceError struct{ err error }

// Error implements error.
func (e *sourceError) Error() string { return e.err.Error() }

// Next implements pgx.CopyFromSource.
func (i *importSource) Next() bool {
	i.at++
	if i.at < len(i.batch) {
		return true
	}
	i.at = 0
	i.batch = i.batch[:0]
	for len(i.batch) < importBatch && !i.end && i.err == nil {
		i.read()
	}
	if i.err != nil || len(i.batch) == 0 {
		return false
	}
	if i.im.Progress != nil {
		i.im.Progress(i.result.Lines)
	}
	i.err = i.hash()
	return i.err == nil
}

func (i *importSource) read() {
	row, err := i.csv.Read()
	var bad *subscriber.BadLine
	switch {
	case errors.Is(err, io.EOF):
		i.end = true
	case errors.As(err, &bad):
		i.result.Lines++
		i.result.bad(*bad)
	case err != nil:
		i.err = &sourceError{fmt.Errorf("reading the file: %w", err)}
	default:
		i.result.Lines++
		i.batch = append(i.batch, row)
	}
}

const hashesSQL = `
SELECT user_id, password
  FROM usher.subscriber
 WHERE realm = @realm AND user_id = ANY (@users) AND password IS NOT NULL`

// hash hashes the batch's passwords. One that is the subscriber's already keeps its hash: a
// new salt would make the same file a change.
func (i *importSource) hash() error {
	i.hashes = make([]*string, len(i.batch))
	var users []string
	for _, row := range i.batch {
		if row.Password != "" {
			users = append(users, row.User)
		}
	}
	if len(users) == 0 {
		return nil
	}
	rows, err := i.store.pool.Query(i.ctx, hashesSQL, pgx.NamedArgs{"realm": i.im.Realm, "users": users})
	if err != nil {
		return err
	}
	known := map[string]string{}
	var user, stored string
	_, err = pgx.ForEachRow(rows, []any{&user, &stored}, func() error {
		known[user] = stored
		return nil
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for n, row := range i.batch {
		if row.Password == "" {
			continue
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			h := known[row.User]
			if good, err := subscriber.CheckPassword(h, row.Password); err != nil || !good {
				h = subscriber.HashPassword(row.Password)
			}
			i.hashes[n] = &h
		})
	}
	all.Wait()
	return i.ctx.Err()
}

// Values implements pgx.CopyFromSource.
func (i *importSource) Values() ([]any, error) {
	r := i.batch[i.at]
	var expires any
	if !r.Until.IsZero() {
		expires = r.Until
	}
	login := r.Login
	return []any{
		int64(r.Line), r.User, r.Name, idOf(i.im.Keyer.Fingerprint(r.Token)), some(login), i.hashes[i.at], append([]string{}, r.Packages...),
		int32(r.Sessions), expires, r.Networks, r.Blocked, r.Comment,
	}, nil
}

// Err implements pgx.CopyFromSource.
func (i *importSource) Err() error { return i.err }
