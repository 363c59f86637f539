package pgstore

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// seed commits one allowed session of anna on news from web1, and one refusal of
// berta on sport from astra1, whose check "portal" said why.
func seed(t *testing.T, s *Store) (session, allowed, denied uuid.UUID) {
	t.Helper()
	session, allowed, denied = newID(t), newID(t), newID(t)
	open := &admission.Open{
		Record: admission.Record{
			ID: allowed, Region: "main", Edge: "edge1", Node: "web1", Caller: "nginx", Stream: "news", Realm: "main", User: "anna",
			IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "VLC", Revision: 3, TraceID: [16]byte{1}, Duration: 5 * time.Millisecond,
			Steps: []access.Step{{Name: "rule", Result: "match"}, {Name: "check site", Result: "allow", Micros: 42}},
		},
		Reason: access.Granted, Session: session, Key: access.Key{1}, Subject: access.Key{2}, Token: access.Key{3}, Device: "tv",
		Limit: 2, Mode: access.RefuseNew, Seat: time.Hour, Lease: time.Minute,
	}
	audit := &admission.Audit{
		Record: admission.Record{
			ID: denied, Region: "main", Edge: "edge1", Node: "astra1", Caller: "astra", Stream: "sport", Realm: "main", User: "berta",
			IP: netip.MustParseAddr("2001:db8::1"), Revision: 3,
			Steps: []access.Step{{Name: "rule", Result: "match"}, {Name: "check portal", Result: "deny", Text: "account is blocked"}},
		},
		Outcome: access.Deny, Reason: access.Refused,
	}
	results, err := NewLedger(s).Apply(t.Context(), []admission.Item{{Open: open}, {Audit: audit}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return session, allowed, denied
}

func newID(t testing.TB) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSessions(t *testing.T) {
	t.Parallel()
	s := setup(t)
	session, allowed, _ := seed(t, s)
	for name, c := range map[string]struct {
		filter SessionFilter
		want   int
	}{
		"all":           {SessionFilter{}, 1},
		"by user":       {SessionFilter{User: "anna"}, 1},
		"other user":    {SessionFilter{User: "berta"}, 0},
		"other realm":   {SessionFilter{Realm: "tv", User: "anna"}, 0},
		"by stream":     {SessionFilter{Stream: "news", Node: "web1"}, 1},
		"by address":    {SessionFilter{IP: netip.MustParseAddr("192.0.2.1")}, 1},
		"other address": {SessionFilter{IP: netip.MustParseAddr("192.0.2.2")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, err := s.Sessions(t.Context(), c.filter)
			if err != nil || len(rows) != c.want {
				t.Fatalf("Sessions(%+v) = %d rows, %v; want %d", c.filter, len(rows), err, c.want)
			}
			if c.want == 1 && (rows[0].ID != session || rows[0].Decision != allowed || rows[0].ClosedAt != nil || *rows[0].User != "anna") {
				t.Errorf("row = %+v", rows[0])
			}
		})
	}
}

func TestClosedSessions(t *testing.T) {
	t.Parallel()
	s := setup(t)
	session, _, _ := seed(t, s)
	before := time.Now().Add(-time.Minute)
	if ended, err := s.KillSession(t.Context(), session, 0); err != nil || ended == nil {
		t.Fatalf("KillSession = %v, %v", ended, err)
	}
	rows, err := s.Sessions(t.Context(), SessionFilter{User: "anna"})
	if err != nil || len(rows) != 0 {
		t.Errorf("live sessions = %v, %v; want none", rows, err)
	}
	rows, err = s.Sessions(t.Context(), SessionFilter{User: "anna", Closed: true, Since: before})
	if err != nil || len(rows) != 1 || rows[0].CloseReason == nil || *rows[0].CloseReason != "killed" {
		t.Errorf("closed sessions = %+v, %v; want the killed one", rows, err)
	}
	row, err := s.Session(t.Context(), session)
	if err != nil || row == nil || row.ClosedAt == nil {
		t.Errorf("Session = %+v, %v; want the closed one", row, err)
	}
	if row, err := s.Session(t.Context(), uuid.New()); row != nil || err != nil {
		t.Errorf("Session of an unknown id = %v, %v; want nil", row, err)
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	s := setup(t)
	session, allowed, denied := seed(t, s)
	since := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		filter DecisionFilter
		want   []uuid.UUID
	}{
		"all":        {DecisionFilter{}, []uuid.UUID{denied, allowed}},
		"by user":    {DecisionFilter{User: "berta"}, []uuid.UUID{denied}},
		"by stream":  {DecisionFilter{Stream: "news"}, []uuid.UUID{allowed}},
		"by address": {DecisionFilter{IP: netip.MustParseAddr("2001:db8::1")}, []uuid.UUID{denied}},
		"by outcome": {DecisionFilter{Outcome: "allow"}, []uuid.UUID{allowed}},
		"by session": {DecisionFilter{Session: session}, []uuid.UUID{allowed}},
		"too late":   {DecisionFilter{Since: time.Now().Add(time.Hour)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.filter.Since.IsZero() {
				c.filter.Since = since
			}
			rows, err := s.Decisions(t.Context(), c.filter)
			if err != nil || len(rows) != len(c.want) {
				t.Fatalf("Decisions(%+v) = %d rows, %v; want %d", c.filter, len(rows), err, len(c.want))
			}
			for i, id := range c.want {
				if rows[i].ID != id {
					t.Errorf("row %d = %s, want %s", i, rows[i].ID, id)
				}
			}
		})
	}
}

func TestDecision(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, allowed, _ := seed(t, s)
	d, err := s.Decision(t.Context(), allowed)
	if err != nil || d == nil {
		t.Fatalf("Decision = %v, %v", d, err)
	}
	if d.Outcome != "allow" || d.TraceID == nil || *d.TraceID != "01000000000000000000000000000000" || d.DurationMicros < 5000 {
		t.Errorf("Decision = %+v", d)
	}
	if len(d.Steps) < 2 || d.Steps[1].Name != "check site" || d.Steps[1].Micros != 42 {
		t.Errorf("steps = %+v", d.Steps)
	}
	for name, id := range map[string]uuid.UUID{"unknown": newID(t), "not of version 7": uuid.New(), "nil": uuid.Nil} {
		if d, err := s.Decision(t.Context(), id); d != nil || err != nil {
			t.Errorf("Decision of an id that is %s = %v, %v; want nil", name, d, err)
		}
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	s := setup(t)
	seed(t, s)
	f := DecisionFilter{Stream: "sport", Since: time.Now().Add(-15 * time.Minute)}
	nodes, err := s.NodeShares(t.Context(), f)
	if err != nil || len(nodes) != 2 {
		t.Fatalf("NodeShares = %+v, %v; want both nodes", nodes, err)
	}
	if n := nodes[0]; n.Node != "astra1" || n.Asked != 1 || n.Allowed != 0 || n.LastAsked == nil {
		t.Errorf("first node = %+v, want astra1 with one refusal", n)
	}
	if n := nodes[1]; n.Node != "web1" || n.Asked != 0 || n.LastAsked != nil || n.LastAny.IsZero() {
		t.Errorf("second node = %+v, want web1, which asked about others alone", n)
	}
	reasons, err := s.ReasonShares(t.Context(), f)
	if err != nil || len(reasons) != 1 {
		t.Fatalf("ReasonShares = %+v, %v; want one", reasons, err)
	}
	if r := reasons[0]; r.Reason != "refused" || r.Check != "check portal" || r.Text != "account is blocked" || r.Count != 1 {
		t.Errorf("reason = %+v", r)
	}
	if at, err := s.LastAsked(t.Context(), f); err != nil || at == nil {
		t.Errorf("LastAsked = %v, %v", at, err)
	}
	f.Stream = "nothing"
	if at, err := s.LastAsked(t.Context(), f); err != nil || at != nil {
		t.Errorf("LastAsked of an unknown stream = %v, %v; want nil", at, err)
	}
}
