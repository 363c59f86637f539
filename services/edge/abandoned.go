package edge

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// abandonedMemory is how long our own denials are at least remembered: longer than
	// their way through the journal takes on a bad day.
	abandonedMemory = 5 * time.Minute
	// maxAbandoned bounds what a long outage may take up.
	maxAbandoned = 65536
)

// abandoned are questions that we denied although a worker may have let the viewer in: it did
// not answer in time. Two sets take turns.
type abandoned struct {
	mu         sync.Mutex // guards all below
	young, old map[uuid.UUID]struct{}
	turned     instant
}

func newAbandoned() *abandoned { return &abandoned{young: make(map[uuid.UUID]struct{})} }

func (a *abandoned) add(id uuid.UUID, now instant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.since(a.turned) >= abandonedMemory || len(a.young) >= maxAbandoned {
		a.young, a.old, a.turned = make(map[uuid.UUID]struct{}), a.young, now
	}
	a.young[id] = struct{}{}
}

func (a *abandoned) has(id uuid.UUID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, young := a.young[id]
	_, old := a.old[id]
	return young || old
}

// askAnew asks for a viewer whom we may have denied a moment ago while a worker let him in.
// Until that denial is recorded the ledger knows his session and answers with it, under the
// id of which we said no. He gets a session of his own in its place, with a row of its own.
func (s *Service) askAnew(ctx context.Context, q *question) (reply *usherv1.AuthReply, sent instant, err error) {
	reply, sent, err = s.ask(ctx, q)
	if err != nil || access.Outcome(reply.GetOutcome()) != access.Allow || !s.abandoned.has(idOf(reply.GetDecisionId())) {
		return reply, sent, err
	}
	q.Session, q.Replaces = uuid.Nil, idOf(reply.GetSessionId())
	return s.ask(ctx, q)
}
