package edge

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"usher.internal/libs/directive"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/control"
)

// server is a streaming server's control API that answers as it is told.
type server struct {
	mu     sync.Mutex // guards all below
	by     map[string]control.Session
	born   map[string]time.Time
	pages  int
	fault  error // of lists
	deaf   error // of kicks
	stays  bool  // kicks are answered, and change nothing
	lists  int
	kicked []string
	// seats answers signs of life in the workers' place; nil takes them all.
	seats func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error)
}

func (n *server) answer(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	n.mu.Lock()
	f := n.seats
	n.mu.Unlock()
	if f == nil {
		return &usherv1.SeatsReply{Ok: true}, nil
	}
	return f(m)
}

func newServer() *server {
	return &server{by: map[string]control.Session{}, born: map[string]time.Time{}, pages: 1}
}

func (n *server) plays(id, stream string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.by[id], n.born[id] = control.Session{ID: id, Stream: stream}, time.Now()
}

func (n *server) leaves(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.by, id)
}

func (n *server) set(f func(n *server)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (n *server) List(_ context.Context, take func(*control.Session)) (control.Summary, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lists++
	for id, v := range n.by {
		v.Age = time.Since(n.born[id])
		take(&v)
	}
	return control.Summary{Pages: n.pages, Rows: len(n.by)}, n.fault
}

func (n *server) Kick(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kicked = append(n.kicked, id)
	if n.deaf != nil {
		return n.deaf
	}
	if _, ok := n.by[id]; !ok {
		return control.ErrGone
	}
	if !n.stays {
		delete(n.by, id)
	}
	return nil
}

func (n *server) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lists
}

func (n *server) kicks() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.kicked)
}

// polled runs f beside an edge that polls the nodes n1 (an Astra) and fl1 every 15 s, and whose
// sweeper runs.
func polled(t *testing.T, f func(t *testing.T, b *bench, n *server)) {
	t.Helper()
	timed(t, func(t *testing.T, b *bench) {
		n := newServer()
		for _, name := range []string{"n1", "fl1"} {
			b.attach(t, name, n)
		}
		b.workers.Seats = n.answer
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, p := range b.pollers.byNode {
			running.Go(func() { p.run(ctx) })
		}
		running.Go(func() { _ = b.sweep(ctx) })
		running.Go(func() { _ = b.purge(ctx) })
		f(t, b, n)
		stop()
		running.Wait()
	})
}

// attach gives a node of the policy a control API.
func (b *bench) attach(t *testing.T, name string, n control.Server) {
	t.Helper()
	p := projection()
	old := b.view.Load()
	for _, v := range p.GetNodes() {
		if v.GetName() == name || old.nodes[v.GetName()] != nil && old.nodes[v.GetName()].Control != nil {
			v.Control = controlView(true)
		}
	}
	b.setPolicy(t, p)
	client, err := control.NewClient(control.Config{URL: "http://10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	node := b.view.Load().nodes[name]
	po := &poller{s: b.Service, conf: *node.Control, client: client, server: n, wake: make(chan struct{}, 1), strays: newStrays(), kicks: newKicks(), again: newAgain()}
	po.node.Store(node)
	b.pollers.byNode[name] = po
}

// opens is a viewer whom the node asks about, and who plays then.
func (b *bench) opens(t *testing.T, n *server, id, stream string) {
	t.Helper()
	r := astraRequest("token=" + id)
	r.Header.Set("X-Session-ID", id)
	r.Header.Set("X-Channel-ID", stream)
	wantStatus(t, id, b.ask(r), http.StatusOK)
	n.plays(id, stream)
}

// valueOf is a metric's value.
func valueOf(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetGauge().GetValue() + d.GetCounter().GetValue()
}

// closes are the reasons of the closes that workers were told.
func (b *bench) closes() (list []string) {
	for _, s := range b.workers.Signs() {
		if s.GetClose() {
			list = append(list, s.GetReason())
		}
	}
	return list
}

func TestAnAstraViewerWhoIsListedKeepsHisSeat(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		b.opens(t, n, "1001", "a001")
		time.Sleep(20 * time.Hour) // far over hold
		if b.table.count.Load() != 1 || len(b.closes()) != 0 {
			t.Fatalf("%d sessions, closes %v: want one that plays", b.table.count.Load(), b.closes())
		}
		signs := b.workers.Signs()
		if last := signs[len(signs)-1]; last.GetAgeMs() > 31_000 || len(signs) < 1000 {
			t.Errorf("%d signs, the last %d ms old", len(signs), last.GetAgeMs())
		}
		n.leaves("1001")
		time.Sleep(18 * time.Second)
		if got := b.closes(); b.table.count.Load() != 0 || !slices.Equal(got, []string{"stopped"}) {
			t.Errorf("closes %v, want one within the poll's interval", got)
		}
	})
}

func TestAListThatCannotBeHadEndsNobody(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		b.opens(t, n, "1", "a001")
		b.opens(t, n, "2", "a001")
		time.Sleep(time.Minute)
		n.set(func(n *server) { n.fault, n.by = control.ErrAnswer, map[string]control.Session{} })
		time.Sleep(5 * time.Hour)
		if b.table.count.Load() != 2 {
			t.Fatal("a session was ended by a list that broke off")
		}
		if v := valueOf(t, b.metrics.control.WithLabelValues("n1", "fails")); v != 1 {
			t.Errorf("state fails = %v, want 1", v)
		}
		time.Sleep(time.Hour + time.Minute) // hold
		if got := b.closes(); !slices.Equal(got, []string{"idle", "idle"}) {
			t.Errorf("closes = %v, want both by hold", got)
		}
	})
}

func TestAListOfSeveralPagesMustSayItTwice(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		b.opens(t, n, "1", "a001")
		b.opens(t, n, "2", "a001")
		time.Sleep(time.Minute)
		n.set(func(n *server) { n.pages = 2 })
		lists, lost := n.count, control.Session{}
		n.set(func(n *server) { lost = n.by["1"] })
		for range 20 { // missing in every other list
			before := lists()
			n.leaves("1")
			for lists() == before {
				time.Sleep(100 * time.Millisecond)
			}
			n.set(func(n *server) { n.by["1"] = lost })
			for before = lists(); lists() == before; {
				time.Sleep(100 * time.Millisecond)
			}
		}
		if len(b.closes()) != 0 {
			t.Fatalf("closes = %v, want none: it was on every other list", b.closes())
		}
		n.leaves("1")
		time.Sleep(40 * time.Second)
		if got := b.closes(); len(got) != 1 {
			t.Errorf("closes = %v, want one after two lists", got)
		}
	})
}

func TestIdsThatNeverMatchEndNobody(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		b.opens(t, n, "1", "a001")
		n.leaves("1")
		n.plays("other-1", "a001")
		time.Sleep(time.Hour)
		if len(b.closes()) != 0 {
			t.Errorf("closes = %v, want none by a list whose ids are others", b.closes())
		}
		if v := valueOf(t, b.metrics.control.WithLabelValues("n1", "unproven")); v != 1 {
			t.Errorf("state unproven = %v, want 1", v)
		}
	})
}

func TestARestartedNodePassesNoSessionOn(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		b.opens(t, n, "1", "a001")
		b.opens(t, n, "2", "a002")
		b.opens(t, n, "3", "a003")
		time.Sleep(time.Hour)
		// It restarts: 1 is somebody whom it let in without asking, 2 asks, 3 is nobody yet.
		n.set(func(n *server) { n.by = map[string]control.Session{} })
		n.plays("1", "a001")
		r := astraRequest("token=new")
		r.Header.Set("X-Session-ID", "2")
		r.Header.Set("X-Channel-ID", "a002")
		wantStatus(t, "new", b.ask(r), http.StatusOK)
		n.plays("2", "a002")
		seats := func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
			reply := &usherv1.SeatsReply{Ok: true}
			for i, s := range m.GetSigns() {
				if len(s.GetSessionKey()) > 0 {
					reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionKey: s.GetSessionKey(), Sign: int32(i + 1)})
				}
			}
			return reply, nil
		}
		n.set(func(n *server) { n.seats = seats })
		time.Sleep(time.Minute)
		if got := b.closes(); !slices.Equal(got, []string{"stopped", "stopped"}) || b.table.count.Load() != 1 {
			t.Errorf("closes = %v and %d sessions, want the old 1 and 3 stopped and the new 2 to live", got, b.table.count.Load())
		}
		if v := valueOf(t, b.metrics.unasked.WithLabelValues("n1")); v != 1 {
			t.Errorf("%v unasked, want the new 1", v)
		}
		n.leaves("1")
		time.Sleep(20 * time.Second)
		if v := valueOf(t, b.metrics.unasked.WithLabelValues("n1")); v != 0 {
			t.Errorf("%v unasked, want none", v)
		}
	})
}

func TestAForcedEndIsToldToTheNodeAtOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"kill", "evict", "ban"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			polled(t, func(t *testing.T, b *bench, n *server) {
				b.opens(t, n, "1001", "a001")
				b.opens(t, n, "1002", "a001")
				time.Sleep(time.Minute)
				ses := b.table.get(b.keyer.Key("caller session", "n1", "1001"))
				switch kind {
				case "ban":
					d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Token = b.keyer.Fingerprint(ses.token) })
					b.control(d.Control(false, d.At))
				default:
					id := ses.grant.Load().session
					b.control(&usherv1.Control{Kind: kind, SessionId: id[:], SessionKey: ses.key[:], Node: "n1", AtUnixMs: time.Now().UnixMilli(), BarMs: 60_000})
				}
				time.Sleep(time.Second)
				if got := n.kicks(); !slices.Equal(got, []string{"1001"}) {
					t.Fatalf("kicked %v, want 1001 within a second", got)
				}
				time.Sleep(time.Minute)
				if got := len(n.kicks()); got != 1 || b.waiting("n1") != 0 {
					t.Errorf("%d kicks, %d waiting; want one that a list confirmed", got, b.waiting("n1"))
				}
				if v := valueOf(t, b.metrics.kicks.WithLabelValues("astra", "confirmed")); v != 1 {
					t.Errorf("%v confirmed, want 1", v)
				}
			})
		})
	}
}

func TestAKickIsRepeatedAndGivenUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set  func(n *server)
		want int
	}{
		// Twenty minutes are two times ten, after which it is tried again.
		"the node fails":         {func(n *server) { n.deaf = control.ErrAnswer }, 2 * maxTries},
		"the session plays on":   {func(n *server) { n.stays = true }, 2 * maxTries},
		"lists break off":        {func(n *server) { n.fault, n.stays = control.ErrAnswer, true }, 2},
		"the node kicks at once": {func(*server) {}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			polled(t, func(t *testing.T, b *bench, n *server) {
				b.opens(t, n, "1", "a001")
				time.Sleep(time.Minute)
				n.set(c.set)
				ses := b.table.get(b.keyer.Key("caller session", "n1", "1"))
				id := ses.grant.Load().session
				b.control(&usherv1.Control{Kind: "kill", SessionId: id[:], SessionKey: ses.key[:], Node: "n1", AtUnixMs: time.Now().UnixMilli(), BarMs: 1000})
				seats := func(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
					reply := &usherv1.SeatsReply{Ok: true}
					for i, s := range m.GetSigns() {
						if len(s.GetSessionKey()) > 0 {
							reply.Ended = append(reply.Ended, &usherv1.SeatEnd{Sign: int32(i + 1), SessionKey: s.GetSessionKey(), SessionId: id[:], Reason: "killed"})
						}
					}
					return reply, nil
				}
				n.set(func(n *server) { n.seats = seats })
				time.Sleep(19 * time.Minute)
				if got := len(n.kicks()); got != c.want {
					t.Errorf("%d kicks, want %d", got, c.want)
				}
				n.set(func(n *server) { n.fault, n.by = nil, nil })
				time.Sleep(time.Minute)
				if left := b.waiting("n1"); left != 0 {
					t.Errorf("%d kicks wait for a session that is gone", left)
				}
			})
		})
	}
}

func TestANodeThatBelongsToNoEdgeIsPolledOnceItAsked(t *testing.T) {
	t.Parallel()
	polled(t, func(t *testing.T, b *bench, n *server) {
		time.Sleep(time.Hour)
		if n.count() != 0 {
			t.Fatalf("%d lists of nodes that have not asked here", n.count())
		}
		b.opens(t, n, "1", "a001")
		time.Sleep(2 * time.Second)
		if n.count() != 1 {
			t.Errorf("%d lists after its first question, want 1", n.count())
		}
		n.leaves("1")
		time.Sleep(25 * time.Hour)
		before := n.count()
		time.Sleep(time.Hour)
		if n.count() != before {
			t.Error("it is polled although it has not asked for a day")
		}
		p := b.pollers.of("fl1")
		node := *p.node.Load()
		node.Edge = "e1"
		p.node.Store(&node)
		time.Sleep(time.Minute)
		if n.count() == before {
			t.Error("a node that the policy gives to this edge is not polled")
		}
	})
}

var _ control.Server = (*server)(nil)

// waiting is how many sessions are being ended at a node.
func (b *bench) waiting(node string) int {
	t := b.pollers.of(node).kicks
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.by)
}

// controlView is a control API of a node that has one.
func controlView(has bool) *usherv1.ControlView {
	if !has {
		return nil
	}
	return &usherv1.ControlView{Url: "http://10.0.0.1", PollMs: 15_000}
}
