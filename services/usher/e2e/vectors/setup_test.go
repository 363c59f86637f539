// Package vectors_test puts the cases of libs/decide/testdata/cases to whole chains: to a
// worker over NATS, and to an edge over HTTP as each streaming server asks, with a real worker,
// a real Postgres and real servers in the place of the operators' systems. The engine
// alone is asked the same in libs/decide.
package vectors_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/natsd"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge"
	"usher.internal/services/worker"
)

// patience is what a test waits for something that has no time limit of its own.
const patience = 20 * time.Second

// place is where the questions of one file are asked: a NATS that holds its policy, and a
// Postgres.
type place struct {
	t        *testing.T
	nats     *natsd.Server
	store    *pgstore.Store
	client   *http.Client
	snapshot *policy.Snapshot
	chains   int
	real     bool // middlewares are where the policy says, and nobody plays them
	stopping sync.WaitGroup
}

func newPlace(t *testing.T, source string) *place {
	t.Helper()
	p := &place{t: t, nats: testkit.NATS(t)}
	s, err := policy.Parse("policy.yaml", []byte(source), decide.Kinds())
	must(t, err)
	s.Revision, p.snapshot = 1, s
	p.store, err = pgstore.Open(context.Background(), pgstore.Config{DSN: testkit.DSN(t), Application: "vectors"}, nil)
	must(t, err)
	t.Cleanup(p.store.Close)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	p.client = &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	c := p.connect("tool", "tool", telemetry.StartWith(nil))
	defer shut(c)
	must(t, c.EnsureStreams(t.Context(), "tool", 1))
	must(t, c.PutPolicy(t.Context(), &usherv1.PolicyRevision{Revision: 1, Source: source}, s.Projections()))
	t.Cleanup(p.stopping.Wait)
	return p
}

func (p *place) connect(name, region string, tel *telemetry.Telemetry) *bus.Conn {
	p.t.Helper()
	c, err := bus.Connect(bus.Config{Name: name, Region: region, URL: p.nats.ClientURL(), Metrics: tel.Registry}, tel.Log)
	must(p.t, err)
	return c
}

func shut(c *bus.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = c.Close(ctx) // the test is over
}

// chain is one edge, worker and cluster key: nothing that one chain remembers is known to another.
type chain struct {
	*place
	region   string
	keyer    *access.Keyer
	clock    *clock
	ports    *ports
	upstream *decidetest.Upstream
	conns    []*bus.Conn // one for each part, as if they ran on several machines
	asker    *bus.Conn   // asks as an edge does
	edge     string      // its base URL
	diary    *diary      // of the edge
	health   *lifecycle.Health
	stop     func() // does not wait

	asked int // how many questions were put

	mu       sync.Mutex        // guards sessions
	sessions map[string][]byte // that were let in last, by the caller's own
}

// chain starts a chain. over says over what its questions come.
func (p *place) chain(t testing.TB, over decidetest.Level, files *worker.Files) *chain {
	t.Helper()
	p.chains++
	key := make([]byte, access.ClusterKeySize)
	_, _ = rand.Read(key) // never fails
	keyer, err := access.NewKeyer(key)
	must(t, err)
	known0, grants0, subscribers := p.store.Known(), p.store.Grants(), p.store.Subscribers()
	c := &chain{
		place: p, region: fmt.Sprintf("%s%d", over, p.chains), keyer: keyer, clock: &clock{},
		upstream: decidetest.NewServers(p.t), health: new(lifecycle.Health), diary: &diary{rows: map[uuid.UUID]*usherv1.DecisionRow{}}, sessions: map[string][]byte{},
		ports: &ports{claims: p.store.Claims(), known: known0, grants: grants0, ahead: time.Since(decidetest.Now)},
	}
	tel := telemetry.StartWith(nil)
	tel.Log = slog.New(slog.DiscardHandler)
	c.asker = c.open("edge0", tel)
	must(t, c.asker.EnsureStreams(t.Context(), c.region, 1))
	w, err := worker.New(worker.Config{Name: "worker1", Region: c.region}, worker.Deps{
		Bus: c.open("worker1", tel), Ledger: pgstore.NewLedger(p.store), Outbox: p.store,
		Claims: claims{c.ports}, Known: known{c.ports}, Grants: grants{c.ports}, Subscribers: subscribers, Keyer: keyer,
		Telemetry: tel, HTTP: p.played(c.upstream), Files: files, Health: c.health, Now: c.clock.now,
	})
	must(t, err)
	tasks := []lifecycle.Task{
		{Name: "known", Run: known0.Run}, {Name: "grants", Run: grants0.Run}, {Name: "subscribers", Run: subscribers.Run},
		{Name: "worker", Run: w.Run},
	}
	if over == decidetest.HTTP {
		tasks = append(tasks, c.newEdge(t, tel), lifecycle.Task{Name: "diary", Run: func(ctx context.Context) error {
			return c.diary.follow(ctx, c.asker, c.region)
		}})
	}
	c.run(tasks)
	c.eventually("the chain is ready", func() bool { return len(c.health.Ready()) == 0 && c.warm(t) })
	return c
}

// warm says whether what is looked up in Postgres is there at once: the first statement of each
// kind and connection is prepared first, and nobody is given long enough for that.
func (c *chain) warm(t testing.TB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	nobody := c.keyer.Key("nobody")
	_, err := c.ports.grants.Find(ctx, decide.For{Who: nobody, IP: netip.IPv4Unspecified()}, false)
	if err == nil {
		_, _, err = c.ports.known.Allowed(ctx, "", nobody)
	}
	return err == nil
}

// played is what carries questions to the hosts of the cases, which exist nowhere.
func (p *place) played(u *decidetest.Upstream) http.RoundTripper {
	if p.real {
		return nil
	}
	return u
}

func (c *chain) newEdge(t testing.TB, tel *telemetry.Telemetry) lifecycle.Task {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	e, err := edge.New(edge.Config{Name: "edge1", Region: c.region}, edge.Deps{
		Bus: c.open("edge1", tel), Keyer: c.keyer, Telemetry: tel, Listener: l, Health: c.health,
	})
	must(t, err)
	c.edge = "http://" + l.Addr().String()
	return lifecycle.Task{Name: "edge", Run: e.Run}
}

// open gives a part a connection of its own, which is closed after it has stopped.
func (c *chain) open(name string, tel *telemetry.Telemetry) *bus.Conn {
	conn := c.connect(name, c.region, tel)
	c.conns = append(c.conns, conn)
	return conn
}

func (c *chain) run(tasks []lifecycle.Task) {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.stopping.Go(func() {
		if err := lifecycle.Run(ctx, slog.New(slog.DiscardHandler), tasks...); err != nil {
			c.t.Errorf("chain %s: %v", c.region, err)
		}
		for _, conn := range c.conns {
			shut(conn)
		}
	})
}

func (c *chain) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("within %v: %s: it is not so; not ready: %v", patience, what, c.health.Ready())
		}
		<-tick.C
	}
}

// places are the country databases that the questions of a group want, nil for none.
func places(t *testing.T, group []*decidetest.Question) *worker.Files {
	t.Helper()
	all := map[string]testkit.Place{}
	for _, q := range group {
		if q.Country == "" && q.ASN == 0 {
			continue
		}
		ip := q.Request().IP
		all[netipPrefix(ip)] = testkit.Place{Country: q.Country, ASN: q.ASN, Org: q.Org}
	}
	if len(all) == 0 {
		return nil
	}
	path := filepath.Join(t.TempDir(), "places.mmdb")
	testkit.Places(t, path, all)
	tel := telemetry.StartWith(nil)
	tel.Log = slog.New(slog.DiscardHandler)
	return worker.OpenFiles(t.Context(), []string{path}, tel)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
