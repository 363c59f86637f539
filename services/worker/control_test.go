package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

// air is a broadcaster and an Outbox.
type air struct {
	mu        sync.Mutex
	sent      []*usherv1.Control
	forgotten [][]int64
	fail      error
	hang      bool
}

func (a *air) PublishControl(ctx context.Context, c *usherv1.Control) (uint64, error) {
	a.mu.Lock()
	hang := a.hang
	a.mu.Unlock()
	if hang {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return 0, a.fail
	}
	a.sent = append(a.sent, c)
	return uint64(len(a.sent)), nil
}

// state is what was told and forgotten so far.
func (a *air) state() (sent []*usherv1.Control, forgotten [][]int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.sent), slices.Clone(a.forgotten)
}

func (a *air) Published(_ context.Context, rows []int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgotten = append(a.forgotten, slices.Clone(rows))
	return a.fail
}

func ended(row int64, why access.CloseReason) admission.Ended {
	id := uuid.Must(uuid.NewV7())
	return admission.Ended{Outbox: row, Session: id, Key: access.Key(id), Reason: why, Bar: time.Minute, BarDevice: true, At: time.Now()}
}

func newTestAnnouncer(a *air) *announcer {
	return newAnnouncer(a, a, slog.New(slog.DiscardHandler), newMetrics("w1", nil))
}

func TestAnnouncerTellsAtOnceAndForgetsInBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := new(air)
		n := newTestAnnouncer(a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		for i := range int64(20) {
			n.tell([]admission.Ended{ended(i+1, access.CloseEvicted)})
		}
		synctest.Wait()
		sent, forgotten := a.state()
		if len(sent) != 20 || len(forgotten) != 0 {
			t.Errorf("%d told and %d deletions, want 20 and none yet", len(sent), len(forgotten))
		}
		time.Sleep(deleteEvery)
		synctest.Wait()
		if _, forgotten = a.state(); len(forgotten) != 1 || len(forgotten[0]) != 20 {
			t.Errorf("forgotten %v, want one batch of 20", forgotten)
		}
		if m := sent[0]; m.GetKind() != "evict" || m.GetReason() != "evicted" || m.GetBarMs() != 60000 || !m.GetBarDevice() {
			t.Errorf("message %v", m)
		}
		n.tell([]admission.Ended{ended(21, access.CloseKilled), ended(22, access.CloseZapped)})
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if sent, forgotten = a.state(); len(sent) != 22 || len(forgotten) != 2 {
			t.Errorf("%d told, forgotten %v: what was committed before the stop must go out", len(sent), forgotten)
		}
	})
}

func TestAnnouncerLeavesFailuresToTheRecorder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &air{fail: errors.New("away")}
		n := newTestAnnouncer(a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		n.tell([]admission.Ended{ended(1, access.CloseKilled)})
		time.Sleep(time.Second)
		cancel()
		<-done
		if _, forgotten := a.state(); len(forgotten) != 0 {
			t.Errorf("forgot %v although it was not told", forgotten)
		}
	})
}

func TestAnnouncerNeverBlocksItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &air{hang: true}
		n := newTestAnnouncer(a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		began := time.Now()
		for range 2 * lanes * laneQueue {
			n.tell([]admission.Ended{ended(1, access.CloseEvicted)})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("telling took %s", took)
		}
		cancel()
		<-done
		if took := time.Since(began); took > 3*publishTimeout {
			t.Errorf("stopping without NATS took %s", took)
		}
	})
}

// beats counts ticks.
type beats struct {
	mu sync.Mutex
	n  int
}

func (b *beats) Tick(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	return errors.New("away")
}

func TestTickGoesOnWhileItFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := new(beats)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second-time.Millisecond)
		defer cancel()
		if err := tick(ctx, b, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("tick: %v", err)
		}
		if b.n != 10 {
			t.Errorf("%d ticks in 5 s, want 10", b.n)
		}
	})
}
