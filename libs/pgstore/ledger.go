package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"usher.internal/libs/admission"
)

// codeIDStored is raised by usher.apply itself (schemas/postgres, 00004_ledger.sql): a question's id is stored
// already, call again with the check on.
const codeIDStored = "UR001"

// maxTries bounds how often one batch is sent again after a conflict that a new snapshot resolves.
const maxTries = 8

// Ledger is admission.Ledger over the SQL function usher.apply.
type Ledger struct{ store *Store }

var _ admission.Ledger = (*Ledger)(nil)

// NewLedger makes a ledger on a store's pool.
func NewLedger(s *Store) *Ledger { return &Ledger{store: s} }

// Apply implements admission.Ledger: one call of usher.apply, one transaction. A batch that Postgres
// refuses because of what stands in it is split down to the item at fault, which alone is refused.
func (l *Ledger) Apply(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	results := make([]admission.Result, len(items))
	good := make([]int, 0, len(items))
	for i := range items {
		if err := admission.Check(&items[i]); err != nil {
			results[i] = admission.Result{Err: err}
			continue
		}
		good = append(good, i)
	}
	if err := l.apply(ctx, items, good, results); err != nil {
		return nil, err
	}
	return results, nil
}

// apply sends the items named by pick and fills in their results.
func (l *Ledger) apply(ctx context.Context, items []admission.Item, pick []int, results []admission.Result) error {
	if len(pick) == 0 {
		return nil
	}
	err := l.call(ctx, items, pick, results)
	var pg *pgconn.PgError
	if err == nil || !errors.As(err, &pg) || away(pg.Code) {
		return unavailable(err)
	}
	if class := pg.Code[:2]; class != "22" && class != "23" {
		return fmt.Errorf("ledger call: %w: %w", admission.ErrUnavailable, err)
	}
	if len(pick) == 1 {
		results[pick[0]] = admission.Result{Err: fmt.Errorf("%w: SQLSTATE %s", admission.ErrBadItem, pg.Code)}
		return nil
	}
	half := len(pick) / 2
	if err := l.apply(ctx, items, pick[:half], results); err != nil {
		return err
	}
	return l.apply(ctx, items, pick[half:], results)
}

const applySQL = `
SELECT kind, ord, decision_id, outcome, reason, realm, user_id, session_id, live, repeated, closed, holders,
       outbox, key, subject, stream, device, node, bar_ms, bar_device, at
  FROM usher.apply($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                   $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45,
                   $46, $47, $48, $49, $50, $51, $52, $53, $54)`

// call runs usher.apply until no conflict with another transaction is left.
func (l *Ledger) call(ctx context.Context, items []admission.Item, pick []int, results []admission.Result) error {
	cols := newColumns(items, pick)
	checkIDs := false
	for try := 1; ; try++ {
		rows, err := l.store.pool.Query(ctx, applySQL, cols.args(checkIDs)...)
		if err == nil {
			err = l.read(rows, cols, results)
		}
		switch {
		case err == nil:
			return nil
		case try == maxTries:
			return err
		case idStored(err):
			checkIDs = true
		case !another(err):
			return err
		}
		select {
		case <-time.After(time.Duration(try) * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *Ledger) read(rows pgx.Rows, cols *columns, results []admission.Result) error {
	var a answer
	// What an earlier try had read does not count.
	for _, i := range cols.questions {
		results[i] = admission.Result{}
	}
	_, err := pgx.ForEachRow(rows, a.targets(), func() error {
		switch a.kind {
		case kindQuestion:
			i := cols.questions[a.ord]
			ended := results[i].Ended
			results[i] = a.result()
			results[i].Would, results[i].Closed = string(results[i].Closed), ""
			results[i].Ended = ended
		case kindSign:
			results[cols.signs[a.ord]] = a.result()
		case kindEnded:
			if a.ord >= 0 {
				i := cols.questions[a.ord]
				results[i].Ended = append(results[i].Ended, a.ended())
			}
		}
		return nil
	})
	return err
}

// idStored says that a question's id is stored already: the call must look for it first.
func idStored(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) &&
		(pg.Code == codeIDStored || pg.Code == "23505" && strings.HasPrefix(pg.TableName, "decision"))
}

// another says that the same call may succeed on a new snapshot: a session key was taken meanwhile, or Postgres ended
// the transaction for the sake of another.
func another(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) &&
		(pg.Code == "23505" && pg.ConstraintName == "seat_key" || pg.Code == "40001" || pg.Code == "40P01")
}
