package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// CommitterOptions bound the group commit; zero values take the defaults.
type CommitterOptions struct {
	// MaxBatch is the most items in one call of the ledger (256).
	MaxBatch int
	// InFlight is how many calls may run at once (2). The second begins only for a batch that is large
	// already or has waited: a call costs as much as ten of its items.
	InFlight int
	// Queue is how many items may wait (MaxBatch × 16); more are refused with ErrOverload.
	Queue int
	// Observe is called after each call with its size, its time and its error; nil for none.
	Observe func(items int, took time.Duration, err error)
}

// Committer is the group commit in front of a ledger: what arrives while calls
// are running goes down together in the next one. A lone item goes down at once; after a
// batch of many, which are about to be followed by as many, it waits a moment for them.
type Committer struct {
	ledger Ledger
	opts   CommitterOptions
	queue  chan *waiting
	// answered is when the ledger last answered, in Unix nanoseconds; 0 for never.
	answered atomic.Int64
	done     chan struct{} // closed when Run has returned
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

// Answered says whether the ledger answered within the last d: then it is there, however
// slow, and a call that took too long is no reason to go on without it.
func (c *Committer) Answered(d time.Duration) bool {
	return time.Since(time.Unix(0, c.answered.Load())) < d
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
	var calls sync.WaitGroup
	defer calls.Wait()
	g := gatherer{Committer: c, ended: make(chan struct{}, c.opts.InFlight)}
	for {
		batch := g.next(ctx)
		if len(batch) == 0 {
			return nil
		}
		g.running++
		calls.Go(func() {
			c.apply(ctx, batch)
			g.ended <- struct{}{}
		})
	}
}

// gatherer makes batches; it belongs to the goroutine of Run.
type gatherer struct {
	*Committer
	running int           // calls
	ended   chan struct{} // one for each call that has ended
	last    int           // size of the last batch
}

// next waits for items and for room, and returns a batch. It is empty when ctx has ended and
// the queue is empty.
func (g *gatherer) next(ctx context.Context) []*waiting {
	batch, ending := g.first(ctx)
	patience := time.NewTimer(g.patience())
	defer patience.Stop()
	for late := ending; len(batch) > 0; {
		batch = g.drain(batch)
		if g.enough(len(batch), late) {
			break
		}
		more := g.queue
		if len(batch) == g.opts.MaxBatch {
			more = nil
		}
		select {
		case w := <-more:
			batch = append(batch, w)
		case <-g.ended:
			g.running--
			patience.Reset(g.patience())
		case <-patience.C:
			late = true
		}
	}
	g.last = len(batch)
	return batch
}

// first waits for one item. ending says that ctx has ended: then nobody is waited for.
func (g *gatherer) first(ctx context.Context) (batch []*waiting, ending bool) {
	for {
		select {
		case w := <-g.queue:
			return []*waiting{w}, ctx.Err() != nil
		case <-g.ended:
			g.running--
		case <-ctx.Done():
			return g.drain(nil), true
		}
	}
}

// drain adds what waits already.
func (g *gatherer) drain(batch []*waiting) []*waiting {
	for len(batch) < g.opts.MaxBatch {
		select {
		case w := <-g.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// enough says whether a batch of n goes down now.
func (g *gatherer) enough(n int, late bool) bool {
	switch {
	case n == 0 || g.running == g.opts.InFlight:
		return false
	case late || n == g.opts.MaxBatch:
		return true
	case g.running > 0:
		return n >= g.opts.MaxBatch/4
	}
	return n >= g.last/2
}

// patience is how long a batch that is not enough yet may wait: for a running call, or for those
// who were answered a moment ago and ask again.
func (g *gatherer) patience() time.Duration {
	if g.running > 0 {
		return 5 * time.Millisecond
	}
	return 300 * time.Microsecond
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
	if err == nil {
		c.answered.Store(time.Now().UnixNano())
	}
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
