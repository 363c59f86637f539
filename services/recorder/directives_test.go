package recorder

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/schemas/proto/usherv1"
)

func banRow() pgstore.DirectiveRow {
	return pgstore.DirectiveRow{Directive: directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: directive.Ban, Action: directive.Deny, Node: "n1", At: time.Now().UTC().Truncate(time.Millisecond),
		Reason: "resells", Author: "anna",
	}}
}

func revokedRow() pgstore.DirectiveRow {
	r := banRow()
	at := time.Now()
	r.RevokedAt, r.RevokedBy = &at, "berta"
	return r
}

func newTestHerald(store *fakeStore, stream *fakeStream) *herald {
	return &herald{store: store, stream: stream, log: quiet(), metrics: newMetrics(nil)}
}

func TestHeraldTellsEachOnce(t *testing.T) {
	t.Parallel()
	store, stream := new(fakeStore), new(fakeStream)
	for range untoldBatch + 5 {
		store.orders = append(store.orders, banRow())
	}
	h := newTestHerald(store, stream)
	for range 2 {
		if err := h.tell(t.Context()); err != nil {
			t.Fatalf("tell: %v", err)
		}
	}
	if stream.published != len(store.orders) {
		t.Errorf("published %d times, want %d", stream.published, len(store.orders))
	}
	store.orders, stream.fail = append(store.orders, banRow()), errAway
	if err := h.tell(t.Context()); !errors.Is(err, errAway) || store.told[store.orders[len(store.orders)-1].ID] {
		t.Errorf("tell = %v: what did not go out counts as told", err)
	}
}

func TestHeraldRestatesWhatTheStreamLosesOrWillDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, stream := new(fakeStore), &fakeStream{made: time.Now()}
		store.orders = []pgstore.DirectiveRow{banRow(), revokedRow()}
		h := newTestHerald(store, stream)
		restate := func(what string, want int) {
			t.Helper()
			stream.published = 0
			if err := h.restate(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if stream.published != want {
				t.Errorf("%s: published %d, want %d", what, stream.published, want)
			}
		}
		restate("at the start", 2)
		restate("again", 0)
		time.Sleep(compareEvery)
		restate("an hour later", 0)
		time.Sleep(restateAge)
		restate("before they age out", 1) // a revocation may: what it revoked is gone by then
		stream.held, stream.made = nil, time.Now()
		restate("in a new stream", 2)
		// A recorder that hung published an older state after the revocation had been lost.
		given := store.orders[1]
		given.RevokedAt = nil
		stream.held[given.ID] = bus.Held{Control: message(&given), At: time.Now()}
		time.Sleep(compareEvery)
		restate("what was revoked", 1)
	})
}

func TestARestoredDatabaseTakesNothingAway(t *testing.T) {
	t.Parallel()
	newer, revoked, over := banRow(), revokedRow(), banRow()
	over.Until = time.Now().Add(-time.Minute)
	stream := &fakeStream{made: time.Now(), held: map[uuid.UUID]bus.Held{}}
	for _, r := range []pgstore.DirectiveRow{newer, revoked, over} {
		stream.held[r.ID] = bus.Held{Control: message(&r), At: time.Now()}
	}
	odd := uuid.New()
	stream.held[odd] = bus.Held{Control: &usherv1.Control{Kind: "ban", Directive: &usherv1.Directive{Id: odd[:], Kind: "wish"}}}
	asBefore := revoked
	asBefore.RevokedAt = nil
	store := &fakeStore{orders: []pgstore.DirectiveRow{asBefore}}
	if err := newTestHerald(store, stream).restate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stream.published != 0 || !stream.held[revoked.ID].Control.GetDirective().GetRevoked() {
		t.Errorf("%d published over what is newer", stream.published)
	}
	if len(store.adopted) != 2 {
		t.Fatalf("adopted %+v, want the newer ban and the revocation", store.adopted)
	}
	for _, r := range store.adopted {
		switch {
		case r.ID == newer.ID && r.RevokedAt == nil && r.Directive == newer.Directive:
		case r.ID == revoked.ID && r.RevokedAt != nil && r.RevokedBy != "":
		default:
			t.Errorf("adopted %+v", r)
		}
	}
}

// heard are the control messages that an edge gets.
type heard struct {
	mu   sync.Mutex
	list []*usherv1.Control
}

func (c *cluster) listen(t *testing.T) *heard {
	h := new(heard)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.edge.FollowControl(ctx, func(_ uint64, m *usherv1.Control) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.list = append(h.list, m)
		}, func(uint64, time.Time) {})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

func (h *heard) has(ok func(*usherv1.Control) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.list, ok)
}

// Whoever gave the order died after the commit: any recorder tells the edges, of the order and of
// whom it ended.
func TestARecorderTellsWhatTheToolLeft(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	session := uuid.Must(uuid.NewV7())
	open := &admission.Open{
		Record: admission.Record{ID: uuid.Must(uuid.NewV7()), Node: "n1", Stream: "news", Realm: "main", User: "anna"},
		Reason: access.Granted, Session: session, Key: access.Key{1}, Subject: access.Key{2}, Limit: 1, Mode: access.RefuseNew, Seat: time.Hour,
	}
	if _, err := pgstore.NewLedger(c.store).Apply(t.Context(), []admission.Item{{Open: open}}); err != nil {
		t.Fatal(err)
	}
	d := banRow().Directive
	if ended, err := c.store.Direct(t.Context(), d, 10); err != nil || len(ended) != 1 {
		t.Fatalf("Direct = %v, %v", ended, err)
	}
	h := c.listen(t)
	_, stop := c.start(t, "r1")
	c.start(t, "r2")
	eventually(t, "the ban is told", func() bool {
		return h.has(func(m *usherv1.Control) bool {
			return string(m.GetDirective().GetId()) == string(d.ID[:]) && !m.GetDirective().GetRevoked()
		})
	})
	eventually(t, "the end of the session is told", func() bool {
		return h.has(func(m *usherv1.Control) bool {
			return string(m.GetSessionId()) == string(session[:]) && m.GetReason() == string(access.CloseBanned)
		})
	})
	eventually(t, "it counts as told", func() bool {
		left, err := c.store.Untold(t.Context(), 10)
		return err == nil && len(left) == 0
	})
	stop()
	if ok, err := c.store.RevokeDirective(t.Context(), directive.Ban, d.ID, "berta", "paid"); !ok || err != nil {
		t.Fatalf("RevokeDirective = %v, %v", ok, err)
	}
	eventually(t, "the revocation is told by the other", func() bool {
		return h.has(func(m *usherv1.Control) bool { return m.GetDirective().GetRevoked() })
	})
}

// The database was restored to a state that lacks one ban: it has it again from the stream.
func TestDirectivesSurviveTheDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s, _ := c.start(t, "r1")
	kept := banRow().Directive
	if _, err := c.store.Direct(t.Context(), kept, 10); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told", func() bool {
		left, err := c.store.Untold(t.Context(), 10)
		return err == nil && len(left) == 0
	})
	newer := banRow()
	eventually(t, "the stream knows one more", func() bool { return s.deps.Bus.PublishDirective(t.Context(), message(&newer)) == nil })
	again := newTestHerald(nil, nil)
	again.store, again.stream, again.log = c.store, s.deps.Bus, slog.New(slog.DiscardHandler)
	if err := again.restate(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := c.store.Directives(t.Context())
	ids := make([]string, 0, len(all))
	for _, d := range all {
		ids = append(ids, d.ID.String())
	}
	if err != nil || len(all) != 2 || !strings.Contains(strings.Join(ids, " "), newer.ID.String()) {
		t.Errorf("the database knows %v, %v, want both", ids, err)
	}
}
