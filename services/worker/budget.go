package worker

import (
	"context"
	"errors"
	"time"
)

// What a question may take, and what each stage leaves to those behind it. Without the
// shares a slow check would leave no time to write the row, and a hanging ledger none to
// journal it; each is a part of what is left, between these bounds.
const (
	// maxAnswer bounds a question whose edge sent no deadline.
	maxAnswer = 5 * time.Second

	minCommitReserve, maxCommitReserve   = 20 * time.Millisecond, 150 * time.Millisecond
	minJournalReserve, maxJournalReserve = 10 * time.Millisecond, 80 * time.Millisecond
)

var (
	errChecksSlow = errors.New("checks took their whole share of the deadline")
	errCommitSlow = errors.New("ledger took its whole share of the deadline")
	errAnswerLate = errors.New("question's deadline has passed")
)

// budget holds the points in time at which each stage of a question must be done.
type budget struct{ checks, commit, answer time.Time }

// newBudget shares out what is left until ctx's deadline, from which the bus has taken the
// reply's way back already.
func newBudget(ctx context.Context, now time.Time) budget {
	end, ok := ctx.Deadline()
	if !ok || end.Sub(now) > maxAnswer {
		end = now.Add(maxAnswer)
	}
	left := end.Sub(now)
	commit := end.Add(-min(max(left/8, minJournalReserve), maxJournalReserve))
	checks := commit.Add(-min(max(left/6, minCommitReserve), maxCommitReserve))
	return budget{checks: checks, commit: commit, answer: end}
}

// forChecks bounds the decision, forCommit the ledger and forAnswer what comes last.
func (b budget) forChecks(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, b.checks, errChecksSlow)
}

func (b budget) forCommit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, b.commit, errCommitSlow)
}

func (b budget) forAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, b.answer, errAnswerLate)
}
