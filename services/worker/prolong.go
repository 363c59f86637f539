package worker

import (
	"context"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

// isNameless says that a running session goes on by a fail mode which does not know whose
// it is: the check that named the user could not be asked. An open without the user would
// count for another subject and so end the session as somebody else's.
func (q *question) isNameless() bool {
	v := &q.verdict
	return v.Outcome == access.Allow && v.Unavailable && v.User == "" && q.Session != uuid.Nil
}

// prolong renews the seat as the ledger has it, with its user, and writes a row of its own
// that says by which fail mode the session went on. It reports false when the session is not
// live: then the question is one of a viewer who opens.
func (a *answerer) prolong(ctx context.Context, q *question) (*usherv1.AuthReply, bool) {
	sign, err := a.commit(ctx, q, admission.Item{Sign: &admission.Sign{Session: q.Session, Edge: q.Edge}})
	if err != nil {
		return a.withoutLedger(ctx, q, err), true
	}
	if !sign.Live {
		return nil, false
	}
	audit := &admission.Audit{Record: a.record(ctx, q), Outcome: access.Allow, Reason: q.verdict.Reason}
	result, err := a.commit(ctx, q, admission.Item{Audit: audit})
	if err != nil {
		return a.withoutLedger(ctx, q, err), true
	}
	if result.Outcome == access.Allow {
		result.Session, result.Live = q.Session, true
	}
	return a.reply(q, result), true
}
