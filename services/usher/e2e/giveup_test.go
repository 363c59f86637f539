package e2e_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge"
	"usher.internal/services/recorder"
	"usher.internal/services/worker"
)

// giveUpRules have a fail mode each that says the opposite of what a worker would say.
const giveUpRules = `
streams:
  - {match: "deny-*", auth: site, on_unavailable: deny, limit: {sessions: 1, by: user, mode: refuse}}
  - {match: "shut-*", auth: deny, on_unavailable: allow}
`

// TestEdgeGaveUp: the worker commits what its edge no longer waits for. What the edge has
// answered stands, and nobody holds a seat who was not let in.
func TestEdgeGaveUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream string
		status int
		// recorded says that the edge's answer is recorded before the worker commits.
		recorded bool
		// deaf says that the worker's replies and reports don't come through. Else it answers,
		// but can't wait for its ledger.
		deaf    bool
		outcome string
		reason  string
		// closed is why the seat that the worker took was closed, "" if it took none.
		closed string
	}{
		"the worker allows before the edge's denial is recorded":  {"deny-1", 403, false, true, "deny", "unavailable", "edge_denied"},
		"the worker allows after the edge's denial is recorded":   {"deny-1", 403, true, true, "deny", "unavailable", ""},
		"the worker denies before the edge's yes is recorded":     {"shut-1", 200, false, true, "allow", "uncounted", ""},
		"the worker denies after the edge's yes is recorded":      {"shut-1", 200, true, true, "allow", "uncounted", ""},
		"the worker gave its ledger up, which then let him in":    {"deny-1", 403, false, false, "deny", "unavailable", "edge_denied"},
		"the worker gave its ledger up, recorded before the seat": {"deny-1", 403, true, false, "deny", "unavailable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupGiveUp(t)
			if c.recorded {
				b.record(t)
			}
			if c.deaf {
				b.wire.stall()
			}
			r := b.ask(t, c.stream)
			if r.status != c.status {
				t.Fatalf("the edge answered %d %s, want %d", r.status, r.reason, c.status)
			}
			if c.recorded {
				eventually(t, 20*time.Second, "the edge's answer is recorded", func() bool { return b.row(t, r.decision) != "" })
			}
			b.ledger.release()
			select {
			case <-b.ledger.applied:
			case <-time.After(20 * time.Second):
				t.Fatal("the question never came to the ledger")
			}
			if !c.recorded {
				if c.closed != "" && b.seats(t, r.decision) != "live" {
					t.Fatalf("the worker took no seat: %q", b.seats(t, r.decision))
				}
				b.record(t)
			}
			want := c.outcome + " " + c.reason
			eventually(t, 20*time.Second, "the row is the edge's answer", func() bool { return b.row(t, r.decision) == want })
			eventually(t, 20*time.Second, "the seat is "+c.closed, func() bool { return b.seats(t, r.decision) == c.closed })
			// What the worker says in the end changes nothing.
			b.wire.flow()
			b.drain(t)
			if got := b.row(t, r.decision); got != want {
				t.Errorf("in the end the row says %q, want %q", got, want)
			}
		})
	}
}

// giveUp is a cluster in this process whose worker can be cut off from its edge, and whose
// ledger commits when it is told to.
type giveUp struct {
	*fleet
	url    string
	sign   func(stream, user string) string
	wire   *wire
	ledger *slowLedger
	store  *pgstore.Store
	conns  func(name, url string) *bus.Conn
}

func setupGiveUp(t *testing.T) *giveUp {
	t.Helper()
	nats := testkit.NATS(t).ClientURL()
	b := &giveUp{fleet: assemble(t, nats, testkit.DSN(t), giveUpRules), sign: signer(t)}
	keyer, err := access.LoadKeyer(b.path("cluster.key"))
	if err != nil {
		t.Fatal(err)
	}
	b.conns = func(name, url string) *bus.Conn { return connect(t, name, url) }
	b.store, err = pgstore.Open(t.Context(), pgstore.Config{DSN: b.dsn}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.store.Close)
	b.spread(t)
	b.wire = newWire(t, nats)
	b.ledger = &slowLedger{Ledger: pgstore.NewLedger(b.store), gate: make(chan struct{}), applied: make(chan struct{})}
	// First in, last out: a commit that waits must not hold up the worker's stop.
	w, err := worker.New(worker.Config{Name: "w1", Region: "eu"}, worker.Deps{
		Bus: b.conns("w1", b.wire.url), Ledger: b.ledger, Outbox: b.store, Keyer: keyer,
		Claims: b.store.Claims(), Telemetry: telemetry.StartWith(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, w.Run)
	t.Cleanup(func() { b.ledger.release(); b.wire.flow() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "http://" + l.Addr().String()
	e, err := edge.New(edge.Config{Name: "e1", Region: "eu"}, edge.Deps{
		Bus: b.conns("e1", nats), Keyer: keyer, Telemetry: telemetry.StartWith(nil), Listener: l,
	})
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, e.Run)
	eventually(t, 20*time.Second, "the edge is ready", func() bool { return e.Ready() == nil })
	b.workerThere(t)
	return b
}

// workerThere waits until NATS knows the worker: an id of another age is answered without the ledger.
func (b *giveUp) workerThere(t *testing.T) {
	t.Helper()
	probe := b.conns("probe", b.nats)
	old := uuid.UUID{6: 0x70, 8: 0x80}
	eventually(t, 20*time.Second, "the worker answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := probe.Ask(ctx, "eu", "probe", &usherv1.AuthRequest{Id: old[:]})
		return err == nil && r.GetStatus() == usherv1.AuthReply_STATUS_CLOCK
	})
}

// spread does what a recorder would, so that none need run yet.
func (b *giveUp) spread(t *testing.T) {
	t.Helper()
	row, err := b.store.CurrentPolicy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.Parse("policy", []byte(row.Source), decide.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	s.Revision = row.Revision
	conn := b.conns("setup", b.nats)
	if err := conn.EnsureStreams(t.Context(), "eu", 0); err != nil {
		t.Fatal(err)
	}
	if err := conn.PutPolicy(t.Context(), &usherv1.PolicyRevision{Revision: row.Revision, Source: row.Source}, s.Projections()); err != nil {
		t.Fatal(err)
	}
}

// record starts the recorder.
func (b *giveUp) record(t *testing.T) {
	t.Helper()
	r, err := recorder.New(recorder.Config{Name: "r1", Region: "eu"}, recorder.Deps{
		Bus: b.conns("r1", b.nats), Store: b.store, Telemetry: telemetry.StartWith(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, r.Run)
}

// drain returns when everything that is in the journal by now has been recorded.
func (b *giveUp) drain(t *testing.T) {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	mark := &usherv1.JournalEntry{Id: id.String(), What: &usherv1.JournalEntry_Decision{Decision: &usherv1.DecisionRow{
		Id: id[:], Region: "eu", Edge: "mark", Outcome: "deny", Reason: "unavailable",
	}}}
	// The worker's own report is on its way as long as its connection moves.
	if err := b.conns("mark", b.wire.url).Journal("eu", "mark").Put(t.Context(), "decision", mark); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the journal is recorded", func() bool { return b.row(t, id) != "" })
}

func (b *giveUp) ask(t *testing.T, stream string) reply {
	t.Helper()
	l := &load{client: http.DefaultClient}
	r := l.ask("astra", b.url+"/v1/astra/astra1?token="+b.sign(stream, "anna"), map[string]string{
		"X-Session-ID": "1", "X-Channel-ID": stream, "X-Real-IP": "10.0.0.1", "X-Real-Path": "/play/" + stream, "X-Real-UA": "tv",
	})
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r
}

// row is what stands under the id, "" if nothing does.
func (b *giveUp) row(t *testing.T, id uuid.UUID) string {
	t.Helper()
	return b.text(t, "SELECT string_agg(outcome || ' ' || reason, ', ') FROM usher.decisions WHERE decision_id = $1", [16]byte(id))
}

// seats says what became of the seat that the question took: live, why it was closed, or "".
func (b *giveUp) seats(t *testing.T, id uuid.UUID) string {
	t.Helper()
	return b.text(t, "SELECT string_agg(COALESCE(close_reason, 'live'), ', ') FROM usher.sessions WHERE decision_id = $1", [16]byte(id))
}

// slowLedger holds its calls until it is released, and carries them out whoever waits.
type slowLedger struct {
	admission.Ledger
	gate     chan struct{}
	released sync.Once
	applied  chan struct{} // closed with the first call that was carried out
	once     sync.Once
}

func (l *slowLedger) release() { l.released.Do(func() { close(l.gate) }) }

// Apply is a call that is stuck in Postgres: its end is not its caller's.
func (l *slowLedger) Apply(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	<-l.gate
	defer l.once.Do(func() { close(l.applied) })
	return l.Ledger.Apply(context.WithoutCancel(ctx), items)
}

// wire is a connection to NATS whose way towards the server can be held up.
type wire struct {
	url string

	mu      sync.Mutex // guards stalled
	stalled chan struct{}
}

func newWire(t *testing.T, nats string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "nats://" + l.Addr().String()}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go w.join(in, strings.TrimPrefix(nats, "nats://"))
		}
	}()
	return w
}

// join carries bytes until either side hangs up.
func (w *wire) join(in net.Conn, addr string) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		w.wait()
		if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
			_ = out.Close()
			return
		}
	}
}

func (w *wire) wait() {
	w.mu.Lock()
	stalled := w.stalled
	w.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
}

// stall holds up what comes from now on until flow.
func (w *wire) stall() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stalled == nil {
		w.stalled = make(chan struct{})
	}
}

func (w *wire) flow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stalled != nil {
		close(w.stalled)
		w.stalled = nil
	}
}

// connect opens a connection to NATS that lasts as long as the test.
func connect(t *testing.T, name, url string) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(bus.Config{Name: name, Region: "eu", URL: url}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx) // nothing is left to be sent
	})
	if err := c.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// inBackground runs a service until the test ends.
func inBackground(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a service ended with %v", err)
		}
	})
}
