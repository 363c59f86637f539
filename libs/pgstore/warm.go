package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// Warm opens so many connections, two for each group commit, and has each make the plans of usher.apply, by an open that is
// rolled back. The first viewers after a start would wait for that otherwise, longer than an Astra does.
func (l *Ledger) Warm(ctx context.Context, n int) error {
	var conns []interface{ Release() }
	defer func() {
		for _, c := range conns {
			c.Release()
		}
	}()
	for range n {
		conn, err := l.store.pool.Acquire(ctx)
		if err != nil {
			return fmt.Errorf("connecting the ledger: %w", unavailable(err))
		}
		conns = append(conns, conn)
		if err := l.rehearse(ctx, conn.Conn()); err != nil {
			return fmt.Errorf("rehearsing the ledger: %w", unavailable(err))
		}
	}
	return nil
}

// errRehearsed rolls a rehearsal back.
var errRehearsed = errors.New("this was a rehearsal")

func (l *Ledger) rehearse(ctx context.Context, conn *pgx.Conn) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	item := admission.Item{Open: &admission.Open{
		Record: admission.Record{ID: id}, Reason: access.Granted, Session: id, Key: access.Key(id), Subject: access.Key(id),
		Limit: 1, Mode: access.RefuseNew, Seat: time.Second,
	}}
	cols := newColumns([]admission.Item{item}, []int{0})
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, applySQL, cols.args(false)...)
		if err != nil {
			return err
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return err
		}
		return errRehearsed
	})
	if errors.Is(err, errRehearsed) {
		return nil
	}
	return err
}
