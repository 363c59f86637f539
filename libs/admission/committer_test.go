package admission

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowLedger takes its time for each call and remembers their sizes.
type slowLedger struct {
	takes time.Duration

	mu      sync.Mutex // guards all below
	batches []int
	running int
	most    int // calls at the same time
}

func (l *slowLedger) Apply(_ context.Context, items []Item) ([]Result, error) {
	l.mu.Lock()
	l.batches = append(l.batches, len(items))
	l.running++
	l.most = max(l.most, l.running)
	l.mu.Unlock()
	time.Sleep(l.takes)
	l.mu.Lock()
	l.running--
	l.mu.Unlock()
	return make([]Result, len(items)), nil
}

// begin runs a committer inside the bubble; the test ends it.
func begin(l Ledger, o CommitterOptions) (c *Committer, end func()) {
	c = NewCommitter(l, o)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = c.Run(ctx) })
	return c, func() { cancel(); run.Wait() }
}

func (c *Committer) doMany(t *testing.T, n int) *sync.WaitGroup {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := c.Do(context.Background(), Item{}); err != nil {
				t.Errorf("Do: %v", err)
			}
		})
	}
	return &all
}

func TestALoneItemGoesDownAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{takes: 3 * time.Millisecond}
		c, end := begin(l, CommitterOptions{})
		defer end()
		for range 3 {
			began := time.Now()
			c.doMany(t, 1).Wait()
			if took := time.Since(began); took != l.takes {
				t.Errorf("a lone item took %s, want the call's %s", took, l.takes)
			}
		}
	})
}

func TestWhatComesDuringACallGoesDownTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{takes: 3 * time.Millisecond}
		c, end := begin(l, CommitterOptions{})
		defer end()
		one := c.doMany(t, 1)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		many := c.doMany(t, 40)
		one.Wait()
		many.Wait()
		if len(l.batches) != 2 || l.batches[1] != 40 || l.most != 1 {
			t.Errorf("batches %v, at most %d at once, want 1 and 40, one after the other", l.batches, l.most)
		}
	})
}

func TestASlowCallDoesNotHoldUpTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{takes: time.Second}
		c, end := begin(l, CommitterOptions{})
		defer end()
		one := c.doMany(t, 1)
		synctest.Wait()
		began := time.Now()
		c.doMany(t, 3).Wait()
		if took := time.Since(began) - l.takes; took > 10*time.Millisecond {
			t.Errorf("items waited %s behind a slow call", took)
		}
		one.Wait()
		if l.most != 2 {
			t.Errorf("%d calls at once, want 2", l.most)
		}
	})
}

func TestALargeBatchDoesNotWaitForTheCallBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{takes: 3 * time.Millisecond}
		c, end := begin(l, CommitterOptions{MaxBatch: 64})
		defer end()
		one := c.doMany(t, 1)
		synctest.Wait()
		began := time.Now()
		c.doMany(t, 16).Wait()
		if took := time.Since(began); took != l.takes {
			t.Errorf("a quarter of the largest batch took %s, want the call's %s", took, l.takes)
		}
		one.Wait()
	})
}

func TestAStopCommitsWhatIsQueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{takes: 3 * time.Millisecond}
		c, end := begin(l, CommitterOptions{MaxBatch: 4, InFlight: 1})
		many := c.doMany(t, 30)
		synctest.Wait()
		end()
		many.Wait()
		done := 0
		for _, n := range l.batches {
			done += n
		}
		if done != 30 || l.most != 1 {
			t.Errorf("%d items in batches %v, at most %d at once, want 30, one after the other", done, l.batches, l.most)
		}
		if _, err := c.Do(context.Background(), Item{}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("after the stop: %v, want ErrUnavailable", err)
		}
	})
}
