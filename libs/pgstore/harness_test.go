package pgstore

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/admission/admissiontest"
	"usher.internal/libs/testkit"
)

// setup gives a store on a fresh database.
func setup(t testing.TB) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{DSN: testkit.DSN(t), MaxConns: 10, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// harness is a Postgres ledger with the levers of the conformance suite.
type harness struct {
	*Ledger
	t testing.TB
}

var _ admissiontest.Harness = harness{}

func newHarness(t testing.TB) harness { return harness{Ledger: NewLedger(setup(t)), t: t} }

func (h harness) exec(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.store.pool.Exec(context.Background(), sql, args...); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

func (h harness) Expire(id uuid.UUID) {
	h.exec("UPDATE usher.seat SET expires_at = clock_timestamp() - interval '1 second' WHERE session_id = $1", [16]byte(id))
}

func (h harness) Kill(id uuid.UUID, bar time.Duration) {
	if _, err := h.store.KillSession(context.Background(), id, bar); err != nil {
		h.t.Fatalf("KillSession: %v", err)
	}
}

func (h harness) Sweep() {
	if _, err := h.store.Sweep(context.Background()); err != nil {
		h.t.Fatalf("Sweep: %v", err)
	}
}

func (h harness) Pass(d time.Duration) {
	h.exec("UPDATE usher.soft_excess SET at = at - $1::interval, idle_at = idle_at - $1::interval, cut_at = cut_at - $1::interval", d)
	h.exec("UPDATE usher.seat SET last_seen_at = last_seen_at - $1::interval", d)
}

func (h harness) Live() []uuid.UUID {
	rows, _ := h.store.pool.Query(context.Background(), "SELECT session_id FROM usher.seat ORDER BY opened_at, session_id")
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		h.t.Fatalf("reading seats: %v", err)
	}
	out := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		out[i] = id
	}
	return out
}

func (h harness) Rows() int {
	var n int
	if err := h.store.pool.QueryRow(context.Background(), "SELECT count(*) FROM usher.decision").Scan(&n); err != nil {
		h.t.Fatalf("counting decisions: %v", err)
	}
	return n
}
