package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// A table with a user's name that nobody thought of when it was added would keep him.
func TestEveryTableWithAUserIsExportedAndForgotten(t *testing.T) {
	t.Parallel()
	s := setup(t)
	rows, _ := s.pool.Query(t.Context(), `SELECT DISTINCT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attname IN ('user_id', 'ip', 'login') ORDER BY 1`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 8 {
		t.Fatalf("tables with users = %v, %v", tables, err)
	}
	for _, table := range tables {
		if !slices.ContainsFunc(personals(), func(p personal) bool { return p.table == table }) {
			t.Errorf("usher.%s names users and is neither exported nor forgotten", table)
		}
	}
}

func (h harness) text() string {
	h.t.Helper()
	var all []string
	for _, table := range []string{"seat", "session_history", "decision", "decision_steps", "usage_day", "usage_peak", "usage_due", "middleware_grant", "known", "claim", "directive",
		"outbox", "subscriber", "subscriber_package", "forgotten", "audit", "audience_day", "bar"} {
		rows, _ := h.store.pool.Query(context.Background(), "SELECT x::text FROM usher."+table+" x")
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, lines...)
	}
	return strings.Join(all, "\n")
}

// leaves has a user leave a trace in every table.
func (h harness) leaves(user string) {
	h.t.Helper()
	now := time.Now().UTC()
	h.write(played{realm: "main", user: user, stream: "news", node: "n1", opened: now.Add(-2 * time.Hour), seen: now.Add(-time.Hour), closed: now.Add(-time.Hour), reason: "stopped", bytes: 70})
	h.roll()
	h.write(played{realm: "main", user: user, stream: "sport", node: "n1", opened: now.Add(-2 * time.Minute), seen: now.Add(-time.Minute), closed: now.Add(-time.Minute), reason: "stopped", bytes: 7})
	row := decisionRow(newID(h.t), access.Deny)
	row.User, row.Steps = user, `[{"n":"check","r":"deny","t":"`+user+` is blocked"}]`
	if _, err := h.store.Record(context.Background(), Batch{Stream: "X" + user, Incarnation: born, Last: 1, Decisions: []*usherv1.DecisionRow{row}}); err != nil {
		h.t.Fatal(err)
	}
	h.exec("INSERT INTO usher.middleware_grant VALUES ($1, '192.0.2.1', 'news', 'portal', 'main', $2, 'x', 1, false, now(), now() + interval '1 hour', NULL)", [16]byte(uuid.New()), user)
	h.exec("INSERT INTO usher.known (check_name, who, allowed, user_id, session_name, sessions, at, realm) VALUES ('portal', $1, true, $2, 'x', 1, now(), 'main')", [16]byte(uuid.New()), user)
	h.exec("INSERT INTO usher.claim VALUES ($1, $2)", [16]byte(uuid.New()), user)
	h.exec("INSERT INTO usher.subscriber (realm, user_id, name, login) VALUES ('main', $1, 'Mr ' || $1, $1)", user)
	h.exec("INSERT INTO usher.package (realm, name, streams) VALUES ('main', 'all-' || $1, '{x}')", "of")
	h.exec("INSERT INTO usher.subscriber_package VALUES ('main', $1, 'all-of')", user)
	h.exec(`INSERT INTO usher.directive (id, kind, action, realm, user_id, at, until, reason, author, told_at)
		VALUES ($1, 'ban', 'deny', 'main', $2, now() - interval '2 hours', now() - interval '1 hour', $2 || ' shared his account', 'op', now())`, [16]byte(uuid.New()), user)
}

func TestForget(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.leaves("annabel")
	streams := func() (s usageSum) {
		for k, v := range h.usage() {
			if k.stream == "news" {
				s.sessions, s.ms, s.bytes = s.sessions+v.sessions, s.ms+v.ms, s.bytes+v.bytes
			}
		}
		return s
	}
	before := streams()

	sections := map[string]int{}
	err := h.store.ExportUser(t.Context(), "main", "annabel", func(table string, row json.RawMessage) error {
		if !json.Valid(row) {
			t.Errorf("%s exports %s", table, row)
		}
		sections[table]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range personals() {
		if p.export != "" && sections[p.table] == 0 {
			t.Errorf("nothing of %s is exported", p.table)
		}
	}
	done, err := h.store.Forget(t.Context(), "main", "annabel", "op")
	if err != nil {
		t.Fatal(err)
	}
	if text := h.text(); strings.Contains(text, "annabel") {
		t.Errorf("she is still known:\n%s", text)
	}
	if len(done.Tables) < 10 {
		t.Errorf("forgotten in %+v, want every table named", done.Tables)
	}
	h.roll()
	if after := streams(); after != before || before.bytes != 70 {
		t.Errorf("news were watched %+v, were %+v: sums of streams must stay", after, before)
	}
	var who, author string
	if err := h.store.pool.QueryRow(t.Context(), "SELECT detail->>'fingerprint', author FROM usher.audit WHERE action = 'forget user'").Scan(&who, &author); err != nil || who != done.Print.String() || author != "op" {
		t.Errorf("audit says %q by %q, %v; want fingerprint %s", who, author, err, done.Print)
	}
	n := 0
	if err := h.store.ExportUser(t.Context(), "main", "annabel", func(string, json.RawMessage) error { n++; return nil }); err != nil || n != 0 {
		t.Errorf("export after forgetting = %d rows, %v", n, err)
	}
}

// What the journal brings after she was forgotten is of a time before, until it is of one after.
func TestForgetHoldsForWhatComesLate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	late := decisionRow(newID(t), access.Deny)
	late.User, late.Steps = "annabel", `[{"n":"x","r":"annabel"}]`
	other := decisionRow(newID(t), access.Deny)
	other.User, other.Realm = "annabel", "tv"
	if _, err := h.store.Forget(t.Context(), "main", "annabel", "op"); err != nil {
		t.Fatal(err)
	}
	h.exec("UPDATE usher.forgotten SET at = at + interval '10 seconds'") // as if it had been a while ago
	uncounted := decisionRow(newID(t), access.Allow)
	uncounted.User = "annabel"
	if done := h.record(Batch{Last: 3, Decisions: []*usherv1.DecisionRow{late, other}, Uncounted: []*usherv1.DecisionRow{uncounted}}); done.New != 3 {
		t.Fatalf("recorded %+v", done)
	}
	if text := h.text(); strings.Count(text, "annabel") != 1 {
		t.Errorf("known:\n%s\nwant her of realm tv alone, who is another one", text)
	}
	h.exec("UPDATE usher.forgotten SET at = at - interval '1 hour'")
	back := decisionRow(newID(t), access.Deny)
	back.User = "annabel"
	h.record(Batch{After: 3, Last: 4, Decisions: []*usherv1.DecisionRow{back}})
	if text := h.text(); strings.Count(text, "annabel") != 2 {
		t.Errorf("who came back after being forgotten is not known:\n%s", text)
	}
}

func TestForgetRefusesWhilePlayingOrBanned(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	open := h.opened("news")
	if _, err := h.store.Forget(t.Context(), "main", "u", "op"); !errors.Is(err, ErrPlaying) {
		t.Errorf("forgetting who plays = %v, want ErrPlaying", err)
	}
	h.close(open.Session, "stopped")
	h.exec(`INSERT INTO usher.directive (id, kind, action, realm, user_id, at, reason, author) VALUES ($1, 'ban', 'deny', 'main', 'u', now(), 'x', 'op')`, [16]byte(uuid.New()))
	if _, err := h.store.Forget(t.Context(), "main", "u", "op"); !errors.Is(err, ErrOrdered) {
		t.Errorf("forgetting who is banned = %v, want ErrOrdered", err)
	}
	var n int
	if err := h.store.pool.QueryRow(t.Context(), "SELECT count(*) FROM usher.forgotten").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d forgotten, %v; want none: nothing changed", n, err)
	}
}
