package pgstore

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// olderSQL is how programs of before migration 00008 call the ledger.
const olderSQL = `
SELECT kind, ord, decision_id, outcome, reason, realm, user_id, session_id, live, repeated, closed, holders,
       outbox, key, subject, stream, device, node, bar_ms, bar_device, at
  FROM usher.apply($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                   $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40)`

// older is the ledger as a worker of the version before calls it, beside those of this one.
type older struct{ harness }

// Apply implements admission.Ledger.
func (o older) Apply(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	results := make([]admission.Result, len(items))
	var good []int
	for i := range items {
		if err := admission.Check(&items[i]); err != nil {
			results[i] = admission.Result{Err: err}
			continue
		}
		good = append(good, i)
	}
	return results, o.apply(ctx, items, good, results)
}

func (o older) apply(ctx context.Context, items []admission.Item, pick []int, results []admission.Result) error {
	cols := newColumns(items, pick)
	var err error
	for _, checkIDs := range []bool{false, true} {
		// What stands between lease and signs is new.
		args := slices.Delete(cols.args(checkIDs), 34, 48)
		rows, queryErr := o.store.pool.Query(ctx, olderSQL, args...)
		if err = queryErr; err == nil {
			err = o.read(rows, cols, results)
		}
		if !idStored(err) {
			break
		}
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code[:2] != "22" && pg.Code[:2] != "23" {
		return err
	}
	if len(pick) == 1 {
		results[pick[0]] = admission.Result{Err: admission.ErrBadItem}
		return nil
	}
	for _, i := range pick {
		if err := o.apply(ctx, items, []int{i}, results); err != nil {
			return err
		}
	}
	return nil
}

// A worker of the version before is served as it always was.
func TestOlderWorkersCallTheLedger(t *testing.T) {
	t.Parallel()
	admissiontest.RunEnforced(t, func(t *testing.T) admissiontest.Harness { return older{newHarness(t)} })
}
