package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// CommitterOptions bound the group commit; zero values take the defaults.
type CommitterOptions struct {
	// MaxBatch is the most items in one call of the ledger (256).
	MaxBatch int
	// InFlight is how many calls may run at once (2): while they run, the next batch fills.
	InFlight int
	// Queue is how many items may wait (MaxBatch × 16); more are refused with ErrOverload.
	Queue int
	// Observe is called after each call with its size, its time and its error; nil for none.
	Observe func(items int, took time.Duration, err error)
}

// Committer is the group commit in front of a ledger: what arrives while calls
// are running goes down together in the next one. It adds no waiting of its own.
type Committer struct {
	ledger Ledger
	opts   CommitterOptions
	queue  chan *waiting
	done   chan struct{} // closed when Run has returned
}

type waiting struct {
	ctx    context.Context
	item   Item
	since  time.Time
	result Result
	err    error
	ready  chan struct{}
}

// NewCommitter makes a committer; it works while Run runs.
func NewCommitter(l Ledger, o CommitterOptions) *Committer {
	if o.MaxBatch <= 0 {
		o.MaxBatch = 256
	}
	if o.InFlight <= 0 {
		o.InFlight = 2
	}
	if o.Queue <= 0 {
		o.Queue = o.MaxBatch * 16
	}
	return &Committer{ledger: l, opts: o, queue: make(chan *waiting, o.Queue), done: make(chan struct{})}
}

// Do applies one item and returns its result. The error wraps ErrUnavailable (nothing
// is known about the item), ErrOverload (it was not begun), the item's own ErrBadItem, or
// is ctx's cause; after the latter the item may still have been applied.
func (c *Committer) Do(ctx context.Context, item Item) (Result, error) {
	w := &waiting{ctx: ctx, item: item, since: time.Now(), ready: make(chan struct{})}
	if err := c.enqueue(w); err != nil {
		return Result{}, err
	}
	return c.wait(ctx, w)
}

// DoAll applies several items, perhaps in several calls; results stand in the
// order of the items. The error is the first of any item; an ErrBadItem yields to others,
// since it stands for its own item alone.
func (c *Committer) DoAll(ctx context.Context, items []Item) ([]Result, error) {
	all := make([]*waiting, len(items))
	var failed error
	for i, item := range items {
		all[i] = &waiting{ctx: ctx, item: item, since: time.Now(), ready: make(chan struct{})}
		if err := c.enqueue(all[i]); err != nil {
			failed = err
			all = all[:i]
			break
		}
	}
	results := make([]Result, len(items))
	for i, w := range all {
		r, err := c.wait(ctx, w)
		results[i] = r
		if err != nil && (failed == nil || errors.Is(failed, ErrBadItem)) {
			failed = err
		}
	}
	return results, failed
}

func (c *Committer) enqueue(w *waiting) error {
	select {
	case <-c.done:
		return fmt.Errorf("group commit has stopped: %w", ErrUnavailable)
	default:
	}
	select {
	case c.queue <- w:
		return nil
	default:
		return fmt.Errorf("%d items wait for the group commit: %w", cap(c.queue), ErrOverload)
	}
}

func (c *Committer) wait(ctx context.Context, w *waiting) (Result, error) {
	select {
	case <-w.ready:
		return w.result, w.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-c.done:
		// Run may have answered just before it ended.
		select {
		case <-w.ready:
			return w.result, w.err
		default:
			return Result{}, fmt.Errorf("group commit has stopped: %w", ErrUnavailable)
		}
	}
}

// Run carries batches to the ledger until ctx ends, and then what is still queued.
func (c *Committer) Run(ctx context.Context) error {
	defer close(c.done)
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, c.opts.InFlight)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			slots <- struct{}{} // the calls are bounded, so a slot comes free
		}
		batch := c.collect(ctx)
		if len(batch) == 0 {
			return nil
		}
		running.Go(func() {
			defer func() { <-slots }()
			c.apply(ctx, batch)
		})
	}
}

// collect waits for one item and takes what else waits already. It returns nothing
// when ctx has ended and the queue is empty.
func (c *Committer) collect(ctx context.Context) []*waiting {
	var batch []*waiting
	select {
	case w := <-c.queue:
		batch = append(batch, w)
	default:
		select {
		case w := <-c.queue:
			batch = append(batch, w)
		case <-ctx.Done():
		}
	}
	for len(batch) > 0 && len(batch) < c.opts.MaxBatch {
		select {
		case w := <-c.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (c *Committer) apply(ctx context.Context, batch []*waiting) {
	live := batch[:0]
	for _, w := range batch {
		// Nobody waits for it any more and nothing of it has begun: don't begin.
		if w.ctx.Err() != nil {
			w.err = context.Cause(w.ctx)
			close(w.ready)
			continue
		}
		live = append(live, w)
	}
	if len(live) == 0 {
		return
	}
	items := make([]Item, len(live))
	now := time.Now()
	for i, w := range live {
		items[i] = w.item
		if s := w.item.Sign; s != nil {
			aged := *s
			aged.Age += now.Sub(w.since)
			items[i].Sign = &aged
		}
	}
	// The batch outlives each asker and the stop of the service: it is bounded by the longest patience in it.
	call, cancel := context.WithDeadlineCause(context.WithoutCancel(ctx), latest(live, now), fmt.Errorf("ledger call took too long: %w", ErrUnavailable))
	defer cancel()
	results, err := c.ledger.Apply(call, items)
	if c.opts.Observe != nil {
		c.opts.Observe(len(items), time.Since(now), err)
	}
	for i, w := range live {
		switch {
		case err != nil:
			w.err = err
		case results[i].Err != nil:
			w.err = results[i].Err
		default:
			w.result = results[i]
		}
		close(w.ready)
	}
}

// latest is the last deadline among the askers, at most maxCall from now.
func latest(batch []*waiting, now time.Time) time.Time {
	last := now
	for _, w := range batch {
		d, ok := w.ctx.Deadline()
		if !ok {
			return now.Add(maxCall)
		}
		if d.After(last) {
			last = d
		}
	}
	if m := now.Add(maxCall); last.After(m) {
		return m
	}
	return last
}

// maxCall bounds a ledger call whose askers have more patience than that.
const maxCall = 5 * time.Second
