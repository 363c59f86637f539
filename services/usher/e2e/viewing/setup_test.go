// Package viewing_test holds what viewers and their streaming servers get, from end to end: real
// NATS, real Postgres, real HTTP, several edges and workers in this process, each with
// connections of its own. Whole programs, and what kills them, are tested in the folder above.
package viewing_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/natsd"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/services/edge"
	"usher.internal/services/recorder"
	"usher.internal/services/worker"
)

const (
	region = "main"
	// patience is what a test waits for something that has no time limit of its own.
	patience = 20 * time.Second
	// secret is what the portal signs its tokens with.
	secret = "e2e-secret-of-the-portal"
	// saltLength fixes the border between salt and user.
	saltLength = 16
)

// shape is what a cluster is made of.
type shape struct {
	edges, workers int
	// policy is the first revision; @SECRET@ in it stands for a reference to the token secret.
	policy string
}

// cluster is Usher as it runs on several machines, but in this process.
type cluster struct {
	t      testing.TB
	began  time.Time
	nats   *natsd.Server
	keyer  *access.Keyer
	health *lifecycle.Health
	logs   *diary
	// store is the test's own way to Postgres. The services reach it through the gate.
	store *pgstore.Store
	gate  *gate
	dsn   string
	// edges are the base URLs of the edges, edgeMetrics and workerMetrics each one's own.
	edges         []string
	edgeMetrics   []prometheus.Gatherer
	workerMetrics []prometheus.Gatherer
	client        *http.Client
	secretFile    string
}

// setup starts a cluster and waits until every part of it is ready under the policy.
func setup(t testing.TB, s shape) *cluster {
	t.Helper()
	c := &cluster{
		t: t, began: time.Now(), nats: testkit.NATS(t), health: new(lifecycle.Health), logs: new(diary),
		client: newClient(t), secretFile: filepath.Join(t.TempDir(), "site"),
	}
	t.Cleanup(func() { c.logs.show(t) })
	must(t, os.WriteFile(c.secretFile, []byte(secret+"\n"), 0o600))
	var err error
	c.keyer, err = access.NewKeyer(bytes.Repeat([]byte{7}, access.ClusterKeySize))
	must(t, err)
	dsn := testkit.DSN(t)
	c.gate = newGate(t, dsn)
	c.dsn = dsn
	c.store = openStore(t, dsn, "e2e")
	c.apply(s.policy)

	// The recorder makes these too, and everybody waits for them; that takes a second longer.
	must(t, c.connect("e2e", c.telemetry()).EnsureStreams(t.Context(), region, 1))
	c.run("recorder", c.recorder("recorder1"))
	var workers, edges []lifecycle.Task
	for i := range s.workers {
		workers = append(workers, c.worker("worker"+strconv.Itoa(i+1))...)
	}
	c.run("workers", workers...)
	for i := range s.edges {
		edges = append(edges, c.edge("edge"+strconv.Itoa(i+1)))
	}
	c.run("edges", edges...)
	c.eventually(patience, "every part is ready", func() bool { return len(c.health.Ready()) == 0 })
	return c
}

// run starts tasks side by side and stops them together when the test ends.
func (c *cluster) run(what string, tasks ...lifecycle.Task) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() {
			if err := lifecycle.Run(ctx, slog.New(slog.DiscardHandler), task); err != nil {
				c.t.Errorf("%s: %v", what, err)
			}
		})
	}
	c.t.Cleanup(func() { cancel(); running.Wait() })
}

func (c *cluster) telemetry() *telemetry.Telemetry {
	tel := telemetry.StartWith(nil)
	tel.Log = slog.New(slog.NewTextHandler(c.logs, nil))
	return tel
}

func (c *cluster) recorder(name string) lifecycle.Task {
	tel := c.telemetry()
	r, err := recorder.New(recorder.Config{Name: name, Region: region}, recorder.Deps{
		Bus: c.connect(name, tel), Store: openStore(c.t, c.gate.dsn, name), Telemetry: tel, Health: c.health,
	})
	must(c.t, err)
	return lifecycle.Task{Name: name, Run: r.Run}
}

func (c *cluster) worker(name string) []lifecycle.Task {
	tel := c.telemetry()
	store := openStore(c.t, c.gate.dsn, name)
	known, grants, subscribers := store.Known(), store.Grants(), store.Subscribers()
	w, err := worker.New(worker.Config{Name: name, Region: region}, worker.Deps{
		Bus: c.connect(name, tel), Ledger: pgstore.NewLedger(store), Outbox: store, Sessions: store, Checks: store,
		Directives: store, Claims: store.Claims(), Known: known, Grants: grants, Subscribers: subscribers, Keyer: c.keyer, Telemetry: tel, Health: c.health,
	})
	must(c.t, err)
	c.workerMetrics = append(c.workerMetrics, tel.Registry)
	return []lifecycle.Task{
		{Name: name + " known", Run: known.Run}, {Name: name + " grants", Run: grants.Run},
		{Name: name + " subscribers", Run: subscribers.Run}, {Name: name, Run: w.Run},
	}
}

func (c *cluster) edge(name string) lifecycle.Task {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(c.t, err)
	tel := c.telemetry()
	e, err := edge.New(edge.Config{Name: name, Region: region}, edge.Deps{
		Bus: c.connect(name, tel), Keyer: c.keyer, Telemetry: tel, Listener: l, Health: c.health,
	})
	must(c.t, err)
	c.edges = append(c.edges, "http://"+l.Addr().String())
	c.edgeMetrics = append(c.edgeMetrics, tel.Registry)
	return lifecycle.Task{Name: name, Run: e.Run}
}

func (c *cluster) connect(name string, tel *telemetry.Telemetry) *bus.Conn {
	conn, err := bus.Connect(bus.Config{Name: name, Region: region, URL: c.nats.ClientURL(), Metrics: tel.Registry}, tel.Log)
	must(c.t, err)
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			c.t.Errorf("closing the connection of %s: %v", name, err)
		}
	})
	return conn
}

func openStore(t testing.TB, dsn, name string) *pgstore.Store {
	t.Helper()
	store, err := pgstore.Open(context.Background(), pgstore.Config{DSN: dsn, Application: name}, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(store.Close)
	return store
}

// apply stores a policy as the newest revision, as `usher policy apply` does once it has
// checked it, and returns its number. The recorder spreads it.
func (c *cluster) apply(policy string) int64 {
	c.t.Helper()
	source := strings.ReplaceAll(policy, "@SECRET@", "file:"+c.secretFile)
	revision, err := c.store.ApplyPolicy(context.Background(), source, "e2e", "")
	must(c.t, err)
	return revision
}

// inForce says whether a revision has arrived at every worker and edge.
func (c *cluster) inForce(revision int64) bool {
	for _, m := range c.workerMetrics {
		if c.metric(m, telemetry.WorkerPolicyRevision().Name) != float64(revision) {
			return false
		}
	}
	for _, m := range c.edgeMetrics {
		if c.metric(m, telemetry.EdgePolicyRevision().Name) != float64(revision) {
			return false
		}
	}
	return true
}

// asked is how many questions the workers have answered so far, however they were decided.
func (c *cluster) asked() int {
	n := 0.0
	for _, m := range c.workerMetrics {
		n += c.metric(m, telemetry.WorkerAnswers().Name)
	}
	return int(n)
}

// metric is the sum over all series of a counter or gauge, 0 if there are none yet.
func (c *cluster) metric(from prometheus.Gatherer, name string) float64 {
	c.t.Helper()
	families, err := from.Gather()
	must(c.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// eventually polls until ok, and fails the test when that takes longer than within.
func (c *cluster) eventually(within time.Duration, what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("within %v: %s: it is not so; not ready: %v", within, what, c.health.Ready())
		}
		<-tick.C
	}
}

// promptly holds what a promise of "within a second" took, each time that it was kept, to that
// time: half of them must have, and none may have taken ten times as long on a machine that
// does many other things.
func promptly(t testing.TB, what string, promise time.Duration, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	if half, most := took[len(took)/2], took[len(took)-1]; half > promise || most > 10*promise {
		t.Errorf("%s took %v, want %v", what, took, promise)
	}
}

// diary keeps the log lines of the services, to be shown when the test has failed.
type diary struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements io.Writer.
func (d *diary) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(line)
}

// says tells whether a line holds the text.
func (d *diary) says(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Contains(d.text.Bytes(), []byte(text))
}

func (d *diary) show(t testing.TB) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const enough = 8 << 10
	if text := d.text.String(); t.Failed() {
		t.Logf("the services logged last:\n%s", text[max(0, len(text)-enough):])
	}
}

func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
