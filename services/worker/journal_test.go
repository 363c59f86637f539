package worker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/schemas/proto/usherv1"
)

func TestWithoutLedgerANewViewerIsLetInUncounted(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.model.SetDown(true)
	m := ask()
	r := b.answer(within(t, time.Second), "e1", m)
	if r.GetOutcome() != "allow" || r.GetReason() != "uncounted" || !r.GetUnaccounted() {
		t.Fatalf("answer = %v", r)
	}
	if lease := time.Duration(r.GetLeaseMs()) * time.Millisecond; lease < uncountedLease || lease > uncountedLease+uncountedSpread {
		t.Errorf("lease %s, want %s to %s", lease, uncountedLease, uncountedLease+uncountedSpread)
	}
	if len(b.journal.entries) != 1 || b.journal.edges[0] != "e1" {
		t.Fatalf("journal holds %v of %v", b.journal.entries, b.journal.edges)
	}
	e := b.journal.entries[0]
	row := e.GetUncounted()
	if row.GetOutcome() != "allow" || row.GetReason() != "uncounted" || string(row.GetId()) != string(m.GetId()) ||
		string(row.GetSessionId()) != string(r.GetSessionId()) || row.GetEdge() != "e1" || row.GetStream() != "open/news" || row.GetPolicyRevision() != 7 {
		t.Errorf("row = %v", row)
	}
	// An edge that gives up and decides by itself journals under the question's id: the
	// stream must not take that for a repetition of this.
	if want := "uncounted." + idOf(t, m.GetId()).String(); e.GetId() != want {
		t.Errorf("entry id %q, want %q", e.GetId(), want)
	}
	var steps []access.Step
	if err := json.Unmarshal([]byte(row.GetSteps()), &steps); err != nil || len(steps) == 0 {
		t.Errorf("steps %q: %v", row.GetSteps(), err)
	}
	if strings.Contains(row.String(), "secret-token") {
		t.Error("the row tells the token")
	}
}

func TestWithoutLedgerStrictRulesRefuse(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.model.SetDown(true)
	r := b.answer(within(t, time.Second), "e1", ask(func(m *usherv1.AuthRequest) { m.Stream = "strict/x" }))
	if r.GetOutcome() != "deny" || r.GetReason() != "unavailable" || r.GetUnaccounted() || len(r.GetSessionId()) != 0 || r.GetLeaseMs() != 0 {
		t.Errorf("answer = %v", r)
	}
	if len(b.journal.entries) != 1 || b.journal.entries[0].GetUncounted().GetReason() != "unavailable" {
		t.Errorf("journal holds %v", b.journal.entries)
	}
}

func TestWithoutLedgerARunningSessionGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	strict := func(m *usherv1.AuthRequest) { m.Stream = "strict/x" }
	m := ask(strict)
	first := b.answer(within(t, time.Second), "e1", m)
	b.model.SetDown(true)
	r := b.answer(within(t, time.Second), "e1", ask(strict, func(n *usherv1.AuthRequest) {
		n.SessionKey, n.SessionId, n.Device = m.SessionKey, first.SessionId, m.Device
	}))
	if r.GetOutcome() != "allow" || r.GetReason() != "uncounted" || string(r.GetSessionId()) != string(first.GetSessionId()) {
		t.Errorf("answer = %v, want the session to go on", r)
	}
	if lease := time.Duration(r.GetLeaseMs()) * time.Millisecond; lease < runningLease || lease > runningLease+runningSpread {
		t.Errorf("lease %s", lease)
	}
}

func TestWithoutLedgerADenialStaysAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.model.SetDown(true)
	r := b.answer(within(t, time.Second), "e1", ask(func(m *usherv1.AuthRequest) { m.Stream = "other" }))
	if r.GetOutcome() != "deny" || r.GetReason() != "no_rule" || len(b.journal.entries) != 1 {
		t.Errorf("answer = %v with %d entries", r, len(b.journal.entries))
	}
}

func TestWithoutLedgerAndJournalTheEdgeDecides(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.model.SetDown(true)
	b.journal.fail = true
	for _, stream := range []string{"open/news", "strict/x", "other"} {
		r := b.answer(within(t, time.Second), "e1", ask(func(m *usherv1.AuthRequest) { m.Stream = stream }))
		if r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL || r.GetOutcome() != "" {
			t.Errorf("%s: answer = %v, want no decision without a row", stream, r)
		}
	}
}

func TestAHangingLedgerLeavesTimeForTheJournal(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.ledger.before = func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	ctx := within(t, 2*time.Second) // the shares are of what is left: on a busy machine a few ms would be none
	r := b.answer(ctx, "e1", ask())
	if r.GetOutcome() != "allow" || !r.GetUnaccounted() || len(b.journal.entries) != 1 {
		t.Errorf("answer = %v with %d entries", r, len(b.journal.entries))
	}
	if err := ctx.Err(); err != nil {
		t.Errorf("answered after the deadline: %v", err)
	}
}

func TestASlowCheckLeavesTimeForTheLedger(t *testing.T) {
	t.Parallel()
	b := setup(t, func(ctx context.Context, _ *access.Request) decide.Verdict {
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errChecksSlow) {
			t.Errorf("checks ended with %v", context.Cause(ctx))
		}
		return decide.Verdict{Outcome: access.Deny, Reason: access.Unavailable, Text: "check portal could not be asked", Limit: -1}
	})
	ctx := within(t, 300*time.Millisecond)
	r := b.answer(ctx, "e1", ask())
	if r.GetOutcome() != "deny" || b.model.Rows() != 1 || ctx.Err() != nil {
		t.Errorf("answer = %v with %d rows, deadline %v", r, b.model.Rows(), ctx.Err())
	}
}
