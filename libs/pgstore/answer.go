package pgstore

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// Kinds of usher.ledger_answer.
const (
	kindQuestion = 0
	kindSign     = 1
	kindEnded    = 2
)

// answer is one row of usher.ledger_answer.
type answer struct {
	kind, ord                                     int32
	decision, session, key, subject               pgtype.UUID
	outcome, reason, realm, user, closed, holders pgtype.Text
	stream, device, node                          pgtype.Text
	live, repeated, barDevice                     pgtype.Bool
	outbox, barMillis                             pgtype.Int8
	at                                            pgtype.Timestamptz
}

func (a *answer) targets() []any {
	return []any{
		&a.kind, &a.ord, &a.decision, &a.outcome, &a.reason, &a.realm, &a.user, &a.session, &a.live, &a.repeated, &a.closed,
		&a.holders, &a.outbox, &a.key, &a.subject, &a.stream, &a.device, &a.node, &a.barMillis, &a.barDevice, &a.at,
	}
}

func (a *answer) result() admission.Result {
	r := admission.Result{
		Decision: uuid.UUID(a.decision.Bytes), Outcome: access.Outcome(a.outcome.String), Reason: access.Reason(a.reason.String),
		Realm: a.realm.String, User: a.user.String, Session: uuid.UUID(a.session.Bytes),
		Live: a.live.Bool, Closed: access.CloseReason(a.closed.String), Repeated: a.repeated.Bool,
		Full: int(a.barMillis.Int64), Taken: int(a.outbox.Int64), // of a question
	}
	if a.holders.Valid {
		// The function made this JSON itself; holders are for words only, so that a fault costs no answer.
		_ = json.Unmarshal([]byte(a.holders.String), &r.Holders)
	}
	return r
}

func (a *answer) ended() admission.Ended {
	return admission.Ended{
		Outbox: a.outbox.Int64, Session: uuid.UUID(a.session.Bytes), Key: access.Key(a.key.Bytes), Subject: access.Key(a.subject.Bytes),
		Realm: a.realm.String, User: a.user.String, Stream: a.stream.String, Device: a.device.String, Node: a.node.String,
		Reason: access.CloseReason(a.closed.String), Bar: time.Duration(a.barMillis.Int64) * time.Millisecond,
		BarDevice: a.barDevice.Bool, At: a.at.Time,
	}
}
