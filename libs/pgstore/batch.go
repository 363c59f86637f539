package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"usher.internal/libs/admission"
)

const (
	// batchQueue bounds the questions that wait; more are refused at once.
	batchQueue = 8192
	batchMost  = 256
	// batchCalls is how many statements run side by side.
	batchCalls = 2
	// batchTime bounds a statement whose askers have more patience.
	batchTime = 2 * time.Second
)

// batcher carries what many ask at the same time to Postgres in one statement. A lone question goes
// down at once; what comes while statements run goes down together in the next one.
type batcher[Q, A any] struct {
	queue chan *asked[Q, A]
	done  chan struct{} // closed when run has returned
	// call answers all questions, in their order.
	call func(ctx context.Context, qs []Q) ([]A, error)
}

type asked[Q, A any] struct {
	ctx    context.Context
	q      Q
	answer A
	err    error
	ready  chan struct{}
}

func newBatcher[Q, A any](call func(context.Context, []Q) ([]A, error)) *batcher[Q, A] {
	return &batcher[Q, A]{queue: make(chan *asked[Q, A], batchQueue), done: make(chan struct{}), call: call}
}

// do asks q. The error wraps admission.ErrUnavailable, or is Postgres's own; after ctx's end the
// question may still be carried out.
func (b *batcher[Q, A]) do(ctx context.Context, q Q) (A, error) {
	a := &asked[Q, A]{ctx: ctx, q: q, ready: make(chan struct{})}
	select {
	case b.queue <- a:
	case <-b.done:
		return a.answer, fmt.Errorf("it has stopped: %w", admission.ErrUnavailable)
	default:
		return a.answer, fmt.Errorf("%d questions wait already: %w", batchQueue, admission.ErrUnavailable)
	}
	select {
	case <-a.ready:
		return a.answer, a.err
	case <-ctx.Done():
		var none A
		return none, fmt.Errorf("%w: %w", admission.ErrUnavailable, context.Cause(ctx))
	case <-b.done:
		select {
		case <-a.ready: // just before it stopped
			return a.answer, a.err
		default:
			var none A
			return none, fmt.Errorf("it has stopped: %w", admission.ErrUnavailable)
		}
	}
}

// run works until ctx ends, then off what is queued.
func (b *batcher[Q, A]) run(ctx context.Context) {
	defer close(b.done)
	var calls sync.WaitGroup
	for range batchCalls {
		calls.Go(func() {
			for {
				select {
				case first := <-b.queue:
					b.work(ctx, first)
					continue
				case <-ctx.Done():
				}
				select {
				case first := <-b.queue:
					b.work(ctx, first)
				default:
					return
				}
			}
		})
	}
	calls.Wait()
}

func (b *batcher[Q, A]) work(ctx context.Context, first *asked[Q, A]) {
	batch := []*asked[Q, A]{first}
	for len(batch) < batchMost {
		select {
		case a := <-b.queue:
			batch = append(batch, a)
			continue
		default:
		}
		break
	}
	live := batch[:0]
	until := time.Time{}
	for _, a := range batch {
		if a.ctx.Err() != nil {
			a.err = fmt.Errorf("%w: %w", admission.ErrUnavailable, context.Cause(a.ctx))
			close(a.ready)
			continue
		}
		end, ok := a.ctx.Deadline()
		if most := time.Now().Add(batchTime); !ok || end.After(most) {
			end = most
		}
		if end.After(until) {
			until = end
		}
		live = append(live, a)
	}
	if len(live) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	b.answer(ctx, live)
	for _, a := range live {
		close(a.ready)
	}
}

// answer fills in the answers. A batch that Postgres refuses for what is in it is split, so that
// one bad question costs nobody else his answer.
func (b *batcher[Q, A]) answer(ctx context.Context, batch []*asked[Q, A]) {
	qs := make([]Q, len(batch))
	for i, a := range batch {
		qs[i] = a.q
	}
	answers, err := b.call(ctx, qs)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		for i, a := range batch {
			a.answer = answers[i]
		}
	case len(batch) > 1 && errors.As(err, &pg) && (pg.Code[:2] == "22" || pg.Code[:2] == "23"):
		b.answer(ctx, batch[:len(batch)/2])
		b.answer(ctx, batch[len(batch)/2:])
	default:
		for _, a := range batch {
			a.err = err
		}
	}
}
