package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// answerTime is kept of every budget for writing the answer.
	answerTime = 20 * time.Millisecond
	// minAttempt is the shortest time in which a worker could answer: it refuses to
	// begin with less.
	minAttempt = 25 * time.Millisecond
	// maxReissues is how often one question's id is made anew for a worker's clock.
	maxReissues = 2
)

// Decider asks the workers of a region and gives the answer of one of them: one
// attempt, within ctx's deadline. A status other than decided is no error.
type Decider interface {
	Ask(ctx context.Context, region, edge string, req *usherv1.AuthRequest) (*usherv1.AuthReply, error)
}

// errBusy means that workers are there but had no room within the budget.
var errBusy = errors.New("no worker had room")

// ask tries workers until one decides or the budget is over: two attempts inside it,
// one where a middleware takes its time; workers that answer that they can't (and
// the absence of any) cost no attempt. Each try after the first is put to the next region,
// the nearest first. sent is when the attempt that was answered began: leases count from there.
func (s *Service) ask(ctx context.Context, q *question) (reply *usherv1.AuthReply, sent instant, err error) {
	attempts, reissues := 2, 0
	if q.rule.upstream || q.node.Upstream {
		attempts = 1
	}
	order, turn := s.regions.order(s.now(), attempts > 1), 0
	err = errBudget
	for {
		left := time.Until(q.deadline)
		if attempts == 0 || left < minAttempt {
			return nil, 0, err
		}
		sent = s.now()
		reply, again := s.attempt(ctx, q, order[turn%len(order)], left/time.Duration(attempts))
		switch {
		case again == nil:
			return reply, sent, nil
		case errors.Is(again, bus.ErrTimeout):
			attempts--
			err, q.doubt = again, true
			turn++
			continue
		case errors.Is(again, errClock) && reissues < maxReissues:
			reissues++
			s.clockOffset.Store(reply.GetWorkerUnixMs() - time.Now().UnixMilli())
			q.ID, q.doubt = s.newID(), false
			continue
		}
		q.doubt = q.doubt || !untouched(again)
		err = again
		if turn++; turn%len(order) != 0 {
			continue // somebody else may have room
		}
		pause(10*time.Millisecond+rand.N(15*time.Millisecond), q.deadline)
	}
}

var (
	errClock    = errors.New("clock differs from the worker's")
	errInternal = errors.New("worker's fault")
)

// untouched says that no worker has begun with the question.
func untouched(err error) bool {
	return errors.Is(err, bus.ErrNoWorker) || errors.Is(err, errBusy) || errors.Is(err, errBudget) || errors.Is(err, errClock)
}

// attempt asks once. The error says why the reply is no decision.
func (s *Service) attempt(ctx context.Context, q *question, r *region, d time.Duration) (*usherv1.AuthReply, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	reply, err := s.decider.Ask(ctx, r.name, s.cfg.Name, message(q))
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, bus.ErrTimeout) {
			err = fmt.Errorf("%w: %w", bus.ErrTimeout, err)
		}
		if errors.Is(err, bus.ErrTimeout) {
			r.missed(s.now())
		}
		return nil, err
	}
	r.answered()
	switch reply.GetStatus() {
	case usherv1.AuthReply_STATUS_DECIDED:
		if sound(reply) {
			return reply, nil
		}
		return nil, errInternal
	case usherv1.AuthReply_STATUS_BUSY:
		return nil, errBusy
	case usherv1.AuthReply_STATUS_CLOCK:
		return reply, errClock
	case usherv1.AuthReply_STATUS_LATE:
		return nil, errBudget
	default: // its own fault, or a status of a newer version
		return nil, errInternal
	}
}

// pause waits d, or until the deadline.
func pause(d time.Duration, deadline time.Time) {
	t := time.NewTimer(min(d, time.Until(deadline)))
	defer t.Stop()
	<-t.C
}
