package worker

import (
	"context"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
)

// Every answer equals its row, over the real ledger: allow, a session that goes on
// by a fail mode, a denial that ends it, and the edge's sign about it.
func TestEveryAnswerEqualsItsRow(t *testing.T) {
	t.Parallel()
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: testkit.DSN(t), Application: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	var b *bench
	var verdict func() decide.Verdict
	b = setup(t, func(context.Context, *access.Request) decide.Verdict { return verdict() })
	b.answerer.ledger = &direct{Ledger: pgstore.NewLedger(store)}
	b.ledger = b.answerer.ledger.(*direct)

	first := ask()
	again := func(session []byte) *usherv1.AuthRequest {
		return ask(func(n *usherv1.AuthRequest) {
			n.SessionKey, n.Device, n.SessionId = first.SessionKey, first.Device, session
		})
	}
	answer := func(m *usherv1.AuthRequest, reason string) *usherv1.AuthReply {
		t.Helper()
		r := b.answer(within(t, 5*time.Second), "e1", m)
		if r.GetReason() != reason {
			t.Fatalf("answer = %v, want %s", r, reason)
		}
		row, err := store.Decision(t.Context(), idOf(t, r.GetDecisionId()))
		if err != nil || row == nil {
			t.Fatalf("the answer %v has no row: %v", r, err)
		}
		if row.Outcome != r.GetOutcome() || row.Reason != r.GetReason() || row.PolicyRevision != 7 || row.Edge != "e1" || len(row.Steps) == 0 {
			t.Errorf("row %+v of answer %v", row, r)
		}
		return r
	}

	verdict = func() decide.Verdict { return allowed(b, "u1") }
	opened := answer(first, "granted")
	session := idOf(t, opened.GetSessionId())
	if r := answer(again(opened.GetSessionId()), "granted"); string(r.GetDecisionId()) != string(opened.GetDecisionId()) {
		t.Errorf("re-decision %v has a row of its own", r)
	}

	verdict = func() decide.Verdict {
		v := allowed(b, "")
		v.Reason, v.Unavailable, v.Subject = access.Grace, true, b.keyer.Key("ip", "x")
		return v
	}
	if r := b.answer(within(t, 5*time.Second), "e1", again(opened.GetSessionId())); r.GetOutcome() != "allow" || idOf(t, r.GetSessionId()) != session {
		t.Errorf("answer = %v, want the session to go on", r)
	}
	if s, err := store.Session(t.Context(), session); err != nil || s == nil || s.ClosedAt != nil || s.User == nil || *s.User != "u1" {
		t.Errorf("session %+v (%v) did not stay as it was", s, err)
	}

	verdict = func() decide.Verdict {
		return decide.Verdict{Outcome: access.Deny, Reason: access.Expired, Text: "too late", Limit: -1,
			Steps: []access.Step{{Name: "check", Result: "deny", Text: "a\x00b"}}}
	}
	answer(again(opened.GetSessionId()), "expired")
	reply := b.keeper().renew(within(t, 5*time.Second), "e1", &usherv1.SeatsRequest{
		Signs: []*usherv1.SeatSign{{SessionId: session[:], Node: "n1"}}})
	if !reply.GetOk() || len(reply.GetEnded()) != 1 || reply.GetEnded()[0].GetReason() != string(access.CloseDenied) {
		t.Errorf("reply = %v, want the session ended as denied", reply)
	}
}
