package edge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// world is two regions whose workers do as told.
type world struct {
	mu     sync.Mutex
	asked  []string
	silent map[string]bool
	reply  map[string]func(*usherv1.AuthRequest) (*usherv1.AuthReply, error)
	seats  map[string]*usherv1.SeatsReply
}

// Ask implements Decider.
func (w *world) Ask(ctx context.Context, region, _ string, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	w.mu.Lock()
	w.asked = append(w.asked, region)
	silent, reply := w.silent[region], w.reply[region]
	w.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, bus.ErrTimeout
	case reply != nil:
		return reply(m)
	}
	return edgetest.Allow(m), nil
}

// SendSeats implements Seats.
func (w *world) SendSeats(_ context.Context, region, _ string, _ *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, region)
	if r := w.seats[region]; r != nil {
		return r, nil
	}
	return nil, bus.ErrNoWorker
}

func (w *world) be(region string, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[region] = silent
}

// take are the regions that were asked since it was called last.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

func twoRegions(t *testing.T) (*bench, *world) {
	t.Helper()
	b := setup(t)
	w := &world{
		silent: map[string]bool{}, reply: map[string]func(*usherv1.AuthRequest) (*usherv1.AuthReply, error){},
		seats: map[string]*usherv1.SeatsReply{},
	}
	b.decider, b.Service.seats, b.regions = w, w, newRegions("near", []string{"near", "hub"})
	return b, w
}

func wantRegions(t *testing.T, what string, w *world, want ...string) {
	t.Helper()
	if got := w.take(); !slices.Equal(got, want) {
		t.Errorf("%s: asked %v, want %v", what, got, want)
	}
}

func TestTheNearestRegionIsAskedFirst(t *testing.T) {
	t.Parallel()
	refuse := func(r *usherv1.AuthReply, err error) func(*usherv1.AuthRequest) (*usherv1.AuthReply, error) {
		return func(*usherv1.AuthRequest) (*usherv1.AuthReply, error) { return r, err }
	}
	cases := map[string]struct {
		near func(*usherv1.AuthRequest) (*usherv1.AuthReply, error)
		want []string
	}{
		"it answers":          {nil, []string{"near"}},
		"nobody is there":     {refuse(nil, bus.ErrNoWorker), []string{"near", "hub"}},
		"all are busy":        {refuse(edgetest.Status(usherv1.AuthReply_STATUS_BUSY), nil), []string{"near", "hub"}},
		"it is out of order":  {refuse(edgetest.Status(usherv1.AuthReply_STATUS_INTERNAL), nil), []string{"near", "hub"}},
		"it cannot in time":   {refuse(edgetest.Status(usherv1.AuthReply_STATUS_LATE), nil), []string{"near", "hub"}},
		"it speaks no sense":  {refuse(&usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "allow"}, nil), []string{"near", "hub"}},
		"its clock is others": {clockOnce(), []string{"near", "near"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, w := twoRegions(t)
				w.reply["near"] = c.near
				begin := time.Now()
				wantStatus(t, name, b.ask(segment("/hls/a/i?token=t")), http.StatusOK)
				wantRegions(t, name, w, c.want...)
				if took := time.Since(begin); took > 30*time.Millisecond {
					t.Errorf("took %v: the next region is asked at once", took)
				}
			})
		})
	}
}

// clockOnce finds the first question's clock wrong.
func clockOnce() func(*usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	var once sync.Once
	return func(m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
		r := edgetest.Allow(m)
		once.Do(func() {
			r = &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_CLOCK, WorkerUnixMs: time.Now().UnixMilli()}
		})
		return r, nil
	}
}

func TestASilentRegionIsPassedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, w := twoRegions(t)
		w.be("near", true)
		n := 0
		next := func(what string, want ...string) time.Duration {
			t.Helper()
			n++
			begin := time.Now()
			wantStatus(t, what, b.ask(segment(fmt.Sprintf("/hls/s%d/i?token=t%d", n, n))), http.StatusOK)
			wantRegions(t, what, w, want...)
			return time.Since(begin)
		}
		for range passOver {
			if took := next("silence", "near", "hub"); took > 1100*time.Millisecond {
				t.Errorf("took %v of the 2 s budget, want half of it at most", took)
			}
		}
		if took := next("passed over", "hub"); took > 10*time.Millisecond {
			t.Errorf("took %v although the silent region is known", took)
		}
		time.Sleep(tryAgain)
		next("one looks again", "near", "hub")
		next("the others wait for it", "hub")
		w.be("near", false)
		time.Sleep(tryAgain)
		next("it answers again", "near")
		next("as if nothing had been", "near")
		w.be("near", true)
		w.be("hub", true)
		wantStatus(t, "all are silent", b.ask(segment("/hls/z/i?token=z")), http.StatusForbidden)
		wantRegions(t, "all are silent", w, "near", "hub")
	})
}

func TestQuestionsWithOneAttemptDoNotTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, w := twoRegions(t)
		for range passOver {
			b.regions[0].missed(b.now())
		}
		time.Sleep(tryAgain)
		wantStatus(t, "upstream", b.ask(segment("/portal/a/i?token=t")), http.StatusOK)
		wantRegions(t, "upstream", w, "hub")
	})
}

func TestSeatsGoWhereTheLedgerIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, w := twoRegions(t)
		ctx, cancel := context.WithTimeout(t.Context(), seatsTimeout)
		defer cancel()
		w.seats["near"], w.seats["hub"] = &usherv1.SeatsReply{}, &usherv1.SeatsReply{Ok: true}
		if _, err := b.putSeats(ctx, &usherv1.SeatsRequest{}); err != nil {
			t.Errorf("putSeats: %v", err)
		}
		wantRegions(t, "the near region is without the ledger", w, "near", "hub")
		w.seats["hub"] = nil
		if _, err := b.putSeats(ctx, &usherv1.SeatsRequest{}); err == nil {
			t.Error("putSeats without anybody who takes them: no error")
		}
	})
}
