package pgstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

var born = time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)

func decisionRow(id uuid.UUID, outcome access.Outcome) *usherv1.DecisionRow {
	return &usherv1.DecisionRow{
		Id: id[:], Region: "r1", Edge: "e1", Node: "n1", Caller: "astra", Stream: "a", Realm: "main", User: "u", Ip: "192.0.2.1",
		Outcome: string(outcome), Reason: "unavailable", PolicyRevision: 1, Steps: `[{"n":"fail mode","r":"deny","us":1}]`,
	}
}

type row struct {
	outcome, reason string
	repeats         int64
	steps           string
}

func (h harness) row(id uuid.UUID) row {
	h.t.Helper()
	var r row
	err := h.store.pool.QueryRow(context.Background(),
		"SELECT outcome, reason, repeats, COALESCE(steps::text, '') FROM usher.decisions WHERE decision_id = $1", [16]byte(id)).
		Scan(&r.outcome, &r.reason, &r.repeats, &r.steps)
	if err != nil {
		h.t.Fatalf("reading decision %s: %v", id, err)
	}
	return r
}

func (h harness) record(b Batch) Recorded {
	h.t.Helper()
	b.Stream, b.Incarnation = "J", born
	done, err := h.store.Record(context.Background(), b)
	if err != nil {
		h.t.Fatalf("Record: %v", err)
	}
	return done
}

func TestRecord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, harness){
		"a batch is stored exactly once":                 recordOnce,
		"an edge's denial stands and frees the seat":     recordDenial,
		"a commit after an edge's denial takes no seat":  recordFirst,
		"a worker's word yields to the edge's":           recordUncounted,
		"a worker's word ends no session":                recordGivenUp,
		"a row that cannot be stored is skipped alone":   recordBad,
		"repeats are totals":                             recordRepeats,
		"a stream made anew starts from its first entry": recordIncarnation,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newHarness(t))
		})
	}
}

func recordOnce(t *testing.T, h harness) {
	id := newID(t)
	if done := h.record(Batch{Last: 5, Decisions: []*usherv1.DecisionRow{decisionRow(id, access.Deny)}}); done.New != 1 {
		t.Fatalf("recorded %+v, want one new row", done)
	}
	again := Batch{Stream: "J", Incarnation: born, Last: 5, Decisions: []*usherv1.DecisionRow{decisionRow(newID(t), access.Deny)}}
	if _, err := h.store.Record(context.Background(), again); !errors.Is(err, ErrPositionMoved) {
		t.Fatalf("recording from an old position: %v, want ErrPositionMoved", err)
	}
	if h.Rows() != 1 {
		t.Errorf("%d rows, want 1", h.Rows())
	}
	if at, err := h.store.Position(context.Background(), "J", born); err != nil || at != 5 {
		t.Errorf("position = %d, %v, want 5", at, err)
	}
	if got := h.row(id); got.outcome != "deny" || got.steps == "" {
		t.Errorf("row = %+v", got)
	}
}

func recordDenial(t *testing.T, h harness) {
	open := admissiontest.Viewer{User: "u", Device: "d", Limit: 2, Mode: access.RefuseNew}.Open("a")
	if _, err := h.Apply(context.Background(), []admission.Item{open}); err != nil {
		t.Fatal(err)
	}
	if done := h.record(Batch{Last: 1, Decisions: []*usherv1.DecisionRow{decisionRow(open.Open.ID, access.Deny)}}); done.Overridden != 1 {
		t.Fatalf("recorded %+v, want one overridden row", done)
	}
	if got := h.row(open.Open.ID); got.outcome != "deny" || got.reason != "unavailable" {
		t.Errorf("row = %+v, want the edge's denial", got)
	}
	if live := h.Live(); len(live) != 0 {
		t.Errorf("live = %v, want none", live)
	}
	var why string
	if err := h.store.pool.QueryRow(context.Background(), "SELECT close_reason FROM usher.sessions WHERE closed_at IS NOT NULL").Scan(&why); err != nil || why != "edge_denied" {
		t.Errorf("close reason = %q, %v", why, err)
	}
}

func recordFirst(t *testing.T, h harness) {
	open := admissiontest.Viewer{User: "u", Device: "d", Limit: 2, Mode: access.RefuseNew}.Open("a")
	h.record(Batch{Last: 1, Decisions: []*usherv1.DecisionRow{decisionRow(open.Open.ID, access.Deny)}})
	r, err := h.Apply(context.Background(), []admission.Item{open})
	if err != nil || r[0].Outcome != access.Deny || r[0].Reason != access.Unavailable {
		t.Fatalf("commit after the edge's denial = %+v, %v", r, err)
	}
	if live := h.Live(); len(live) != 0 || h.Rows() != 1 {
		t.Errorf("live = %v, %d rows, want none and 1", live, h.Rows())
	}
}

func recordUncounted(t *testing.T, h harness) {
	id := newID(t)
	h.record(Batch{Last: 1, Uncounted: []*usherv1.DecisionRow{decisionRow(id, access.Allow)}})
	h.record(Batch{After: 1, Last: 2, Decisions: []*usherv1.DecisionRow{decisionRow(id, access.Deny)}})
	h.record(Batch{After: 2, Last: 3, Uncounted: []*usherv1.DecisionRow{decisionRow(id, access.Allow)}})
	if got := h.row(id); got.outcome != "deny" || h.Rows() != 1 {
		t.Errorf("row = %+v of %d, want the edge's denial", got, h.Rows())
	}
}

// recordGivenUp: a worker that nobody waited for denied without the ledger; another one had
// let the viewer in.
func recordGivenUp(t *testing.T, h harness) {
	open := admissiontest.Viewer{User: "u", Device: "d", Limit: 2, Mode: access.RefuseNew}.Open("a")
	if _, err := h.Apply(context.Background(), []admission.Item{open}); err != nil {
		t.Fatal(err)
	}
	h.record(Batch{Last: 1, Uncounted: []*usherv1.DecisionRow{decisionRow(open.Open.ID, access.Deny)}})
	h.record(Batch{After: 1, Last: 2, Decisions: []*usherv1.DecisionRow{decisionRow(open.Open.ID, access.Allow)}})
	if got := h.row(open.Open.ID); got.outcome != "allow" {
		t.Errorf("row = %+v, want what the edge answered", got)
	}
	if live := h.Live(); len(live) != 1 {
		t.Errorf("live = %v, want the session that was let in", live)
	}
}

func recordBad(t *testing.T, h harness) {
	good1, bad, good2 := decisionRow(newID(t), access.Deny), decisionRow(newID(t), access.Deny), decisionRow(newID(t), access.Deny)
	bad.Stream = "nul\x00"
	short := decisionRow(newID(t), access.Deny)
	short.Id = short.Id[:3]
	if done := h.record(Batch{Last: 4, Decisions: []*usherv1.DecisionRow{good1, bad, short, good2}}); done.New != 2 || done.Bad != 2 {
		t.Fatalf("recorded %+v, want 2 new and 2 bad", done)
	}
}

func recordRepeats(t *testing.T, h harness) {
	id := newID(t)
	h.record(Batch{Last: 1, Decisions: []*usherv1.DecisionRow{decisionRow(id, access.Deny)}})
	h.record(Batch{After: 1, Last: 2, Repeats: []*usherv1.Repeats{{DecisionId: id[:], Total: 7}}})
	h.record(Batch{After: 2, Last: 3, Repeats: []*usherv1.Repeats{{DecisionId: id[:], Total: 5}}})
	if got := h.row(id); got.repeats != 7 {
		t.Errorf("repeats = %d, want 7", got.repeats)
	}
}

func recordIncarnation(t *testing.T, h harness) {
	h.record(Batch{Last: 9})
	other := Batch{Stream: "J", Incarnation: born.Add(time.Hour), Last: 2}
	if at, err := h.store.Position(context.Background(), "J", other.Incarnation); err != nil || at != 0 {
		t.Fatalf("position of a new stream = %d, %v, want 0", at, err)
	}
	if _, err := h.store.Record(context.Background(), other); err != nil {
		t.Fatalf("recording a new stream: %v", err)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	s := setup(t)
	mine, theirs := s.Claims(), s.Claims()
	name := access.Key{1}
	for _, c := range []struct {
		claims      *Claims
		value, want string
	}{{mine, "u1", "u1"}, {theirs, "u2", "u1"}, {mine, "u2", "u1"}, {theirs, "", "u1"}} {
		if got, err := c.claims.First(context.Background(), name, c.value); err != nil || got != c.want {
			t.Errorf("First(%q) = %q, %v, want %q", c.value, got, err, c.want)
		}
	}
}

func TestMaintain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec("CREATE TABLE usher.decision_20200101 PARTITION OF usher.decision FOR VALUES FROM ('2020-01-01Z') TO ('2020-01-02Z')")
	keep := policy.Retention{Decisions: 30 * 24 * time.Hour}
	m, err := h.store.Maintain(context.Background(), keep)
	if err != nil || m.Dropped != 1 || m.Created != 0 {
		t.Fatalf("Maintain = %+v, %v, want 1 dropped", m, err)
	}
	h.exec("DROP TABLE usher.decision_" + time.Now().UTC().AddDate(0, 0, 7).Format("20060102"))
	if m, err = h.store.Maintain(context.Background(), keep); err != nil || m.Created != 1 || m.Dropped != 0 {
		t.Fatalf("Maintain = %+v, %v, want 1 created", m, err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	open := admissiontest.Viewer{User: "u", Device: "d", Limit: 2, Mode: access.RefuseNew}.Open("a")
	if _, err := h.Apply(context.Background(), []admission.Item{open}); err != nil {
		t.Fatal(err)
	}
	// The ledger was away for an hour, in which the seat would have run out: it lives on by that hour.
	h.exec("UPDATE usher.seat SET expires_at = clock_timestamp() - interval '59 minutes'")
	h.exec("UPDATE usher.sweeper_tick SET at = clock_timestamp() - interval '1 hour'")
	swept, err := h.store.Sweep(context.Background())
	if err != nil || swept.Expired != 0 || swept.Gap < time.Hour {
		t.Fatalf("Sweep after an outage = %+v, %v", swept, err)
	}
	h.Expire(open.Open.Session)
	if swept, err = h.store.Sweep(context.Background()); err != nil || swept.Expired != 1 || swept.Gap != 0 {
		t.Fatalf("Sweep = %+v, %v, want one expired", swept, err)
	}
	if s, err := h.store.Outbox(context.Background(), 0, 10); err != nil || len(s) != 0 {
		t.Errorf("outbox = %+v, %v, want nothing: nobody was ended by force", s, err)
	}
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	open := admissiontest.Viewer{User: "u", Device: "d", Limit: 2, Mode: access.RefuseNew}.Open("a")
	if _, err := h.Apply(context.Background(), []admission.Item{open}); err != nil {
		t.Fatal(err)
	}
	h.Kill(open.Open.Session, time.Minute)
	left, err := h.store.Outbox(context.Background(), 0, 10)
	if err != nil || len(left) != 1 || left[0].Session != open.Open.Session || left[0].Reason != access.CloseKilled || left[0].Key != open.Open.Key || left[0].Bar < time.Minute {
		t.Fatalf("outbox = %+v, %v", left, err)
	}
	if young, err := h.store.Outbox(context.Background(), time.Hour, 10); err != nil || len(young) != 0 {
		t.Errorf("outbox of an hour ago = %+v, %v, want nothing", young, err)
	}
	if err := h.store.Published(context.Background(), []int64{left[0].Outbox}); err != nil {
		t.Fatal(err)
	}
	if left, err = h.store.Outbox(context.Background(), 0, 10); err != nil || len(left) != 0 {
		t.Errorf("outbox after publishing = %+v, %v", left, err)
	}
}
