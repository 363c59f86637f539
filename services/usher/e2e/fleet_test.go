package e2e_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"usher.internal/libs/pgstore"
)

// fleet is a cluster of which each role runs in processes of its own, around one NATS server and
// one database that belong to the test.
type fleet struct {
	dir, nats, dsn string
	env            []string
	admin          bool          // processes serve health and metrics
	pool           *pgxpool.Pool // the test's own eyes on the database
	all            []*process
}

// assemble prepares a fleet with a policy; it starts no process. streams are the policy's rules,
// beneath the nodes web1 (nginx) and astra1 and the check site (securetoken).
func assemble(t *testing.T, nats, dsn, streams string, env ...string) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir(), nats: nats, dsn: dsn, env: env}
	write(t, f.path("cluster.key"), base64.StdEncoding.EncodeToString([]byte("an example key of 32 bytes only!")))
	write(t, f.path("postgres"), dsn)
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: dsn, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.apply(t, f.policy(t, streams))
	if f.pool, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.pool.Close)
	return f
}

// apply stores a policy as the newest revision.
func (f *fleet) apply(t *testing.T, source string) {
	t.Helper()
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: f.dsn, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.ApplyPolicy(t.Context(), source, "test", ""); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// policy has short leases, so that running sessions are decided again while the test runs, and
// seats that outlive it.
func (f *fleet) policy(t *testing.T, streams string) string {
	t.Helper()
	write(t, f.path("secret"), secret)
	return `
version: 1
defaults: {lease: 2s, idle: 5m}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**"}
  astra1: {caller: astra, from: [127.0.0.1], hold: 1h}
checks:
  site: {type: securetoken, secret: "file:` + f.path("secret") + `", check_ip: false, salt_length: ` + strconv.Itoa(saltLength) + `}
` + streams
}

// common is what the files of all roles have.
func (f *fleet) common(name string) string {
	text := fmt.Sprintf("name: %s\nregion: eu\nnats: {url: %q}\n", name, f.nats)
	if f.admin {
		text += "admin: 127.0.0.1:0\n"
	}
	return text
}

func (f *fleet) launch(t *testing.T, role, name, config string) *process {
	t.Helper()
	p := launch(t, role, name, f.common(name)+config, f.env...)
	f.all = append(f.all, p)
	return p
}

// worker starts a worker. It does not wait until it works.
func (f *fleet) worker(t *testing.T, name string) *process {
	t.Helper()
	return f.launch(t, "worker", name, "postgres: file:"+f.path("postgres")+"\ncluster_key: "+f.path("cluster.key")+"\n")
}

func (f *fleet) recorder(t *testing.T, name string) *process {
	t.Helper()
	return f.launch(t, "recorder", name, "postgres: file:"+f.path("postgres")+"\n")
}

// edge starts an edge and gives its URL once it has the policy.
func (f *fleet) edge(t *testing.T, name string) (p *process, url string) {
	t.Helper()
	p = f.launch(t, "edge", name, "http: 127.0.0.1:0\ncluster_key: "+f.path("cluster.key")+"\n")
	p.said(t, "policy in force")
	return p, fmt.Sprintf("http://%v", p.said(t, "edge listens")["address"])
}

// workers starts n workers and waits until they take questions.
func (f *fleet) workers(t *testing.T, n int) []*process {
	t.Helper()
	all := make([]*process, n)
	for i := range all {
		all[i] = f.worker(t, fmt.Sprintf("w%d", i+1))
	}
	for _, p := range all {
		p.said(t, "worker takes questions")
	}
	return all
}

// logs is what all processes of the fleet have written.
func (f *fleet) logs() string {
	var b strings.Builder
	for _, p := range f.all {
		b.WriteString(p.log())
		b.WriteByte('\n')
	}
	return b.String()
}
