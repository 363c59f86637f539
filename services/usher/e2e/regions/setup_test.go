// Package regions_test starts the NATS servers of deployments/nats, hub and region, from those very
// files, with the accounts and credentials that usher creds makes, and tries what they promise.
package regions_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"usher.internal/libs/bus"
	"usher.internal/libs/testkit"
	"usher.internal/services/usher/creds"
)

// realm is a directory with keys, certificates and credentials, and the servers started from it.
type realm struct {
	dir string
	ca  *testkit.CA
	hub []*server.Server
	eu  *server.Server
	// link is between eu and the hub.
	link *testkit.Relay
}

func (r *realm) path(name string) string { return filepath.Join(r.dir, name) }

func (r *realm) creds() creds.Dir { return creds.Dir(r.dir) }

func newRealm(t *testing.T) *realm {
	t.Helper()
	r := &realm{dir: t.TempDir()}
	r.ca = testkit.NewCA(t, r.dir)
	r.ca.Issue("server", time.Now().Add(24*time.Hour))
	if err := r.creds().Init("hub"); err != nil {
		t.Fatal(err)
	}
	return r
}

// issue writes NAME.creds.
func (r *realm) issue(t *testing.T, role creds.Role, name, region string) string {
	t.Helper()
	text, err := r.creds().Issue(role, name, region, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	path := r.path(name + ".creds")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config is a file of deployments/nats with other values for the names at its top.
func (r *realm) config(t *testing.T, file, name string, values map[string]string) string {
	t.Helper()
	raw, err := os.ReadFile("../../../../deployments/nats/" + file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	all := map[string]string{
		"SERVER": name, "DATA": r.path(name), "TLS_CERT": r.path("server.crt"), "TLS_KEY": r.path("server.key"), "TLS_CA": r.path("ca.crt"),
		"CLIENTS_AT": `"127.0.0.1:-1"`, "MONITOR_AT": `"127.0.0.1:-1"`,
	}
	for k, v := range values {
		all[k] = v
	}
	for k, v := range all {
		line := regexp.MustCompile(`(?m)^` + k + `: .*$`)
		if !line.MatchString(text) {
			t.Fatalf("%s does not set %s", file, k)
		}
		text = line.ReplaceAllLiteralString(text, k+": "+v)
	}
	path := r.path(name + ".conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a server from a configuration file, as nats-server -c does.
func start(t *testing.T, path string) *server.Server {
	t.Helper()
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	// In a process of its own it may; here the tests' own signals count.
	opts.NoSigs, opts.NoLog = true, true
	// The disk of a test need not survive a power cut.
	opts.SyncAlways = false
	opts.LeafNode.ReconnectInterval = 100 * time.Millisecond
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	if os.Getenv("USHER_TEST_NATS_LOG") != "" {
		s.SetLoggerV2(console{t, opts.ServerName}, true, false, false)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatalf("%s: the server is not ready", filepath.Base(path))
	}
	return s
}

// console shows a server's log when a test is looked into.
type console struct {
	t    *testing.T
	name string
}

func (c console) say(format string, v ...any) { fmt.Println(c.name, fmt.Sprintf(format, v...)) }

func (c console) Noticef(f string, v ...any) { c.say(f, v...) }
func (c console) Warnf(f string, v ...any)   { c.say(f, v...) }
func (c console) Errorf(f string, v ...any)  { c.say(f, v...) }
func (c console) Fatalf(f string, v ...any)  { c.say(f, v...) }
func (c console) Debugf(f string, v ...any)  { c.say(f, v...) }
func (c console) Tracef(string, ...any)      {}

// startHub starts the three servers of the hub.
func (r *realm) startHub(t *testing.T) {
	t.Helper()
	ports := freePorts(t, 4)
	routes := fmt.Sprintf(`["tls://127.0.0.1:%d", "tls://127.0.0.1:%d", "tls://127.0.0.1:%d"]`, ports[0], ports[1], ports[2])
	for i := range 3 {
		leafs := `"127.0.0.1:-1"`
		if i == 0 {
			leafs = fmt.Sprintf(`"127.0.0.1:%d"`, ports[3])
		}
		path := r.config(t, "hub.conf", fmt.Sprintf("hub-%d", i+1), map[string]string{
			"PEERS_AT": fmt.Sprintf(`"127.0.0.1:%d"`, ports[i]), "PEERS": routes, "LEAFS_AT": leafs,
		})
		opts, err := server.ProcessConfigFile(path)
		if err != nil || opts.ServerName == "" {
			t.Fatalf("hub.conf: %v", err)
		}
		r.hub = append(r.hub, start(t, path))
	}
	r.link = testkit.NewRelay(t, fmt.Sprintf("127.0.0.1:%d", ports[3]))
	eventually(t, 30*time.Second, "the hub has a leader", func() bool {
		for _, s := range r.hub {
			if s.JetStreamIsLeader() {
				return true
			}
		}
		return false
	})
}

// startRegion starts the server of region eu and waits for its link.
func (r *realm) startRegion(t *testing.T) {
	t.Helper()
	account, err := r.creds().Account(creds.Link)
	if err != nil {
		t.Fatal(err)
	}
	r.eu = start(t, r.config(t, "leaf.conf", "eu-1", map[string]string{
		"HUB": fmt.Sprintf(`["tls://%s"]`, r.link.Addr()), "LINK_ACCOUNT": account, "LINK_CREDS": r.issue(t, creds.Link, "eu", "eu"),
	}))
	eventually(t, 20*time.Second, "the link stands", func() bool { return r.eu.NumLeafNodes() == 1 })
}

// connect opens the bus as a process of that role and region does.
func (r *realm) connect(t *testing.T, s *server.Server, role creds.Role, name, region string, faults chan error) *bus.Conn {
	t.Helper()
	r.ca.Issue(name, time.Now().Add(time.Hour))
	c, err := bus.Connect(bus.Config{
		Name: name, Region: region, Hub: "hub", URL: url(s), Creds: r.issue(t, role, name, region),
		CA: r.path("ca.crt"), Cert: r.path(name + ".crt"), Key: r.path(name + ".key"),
		OnFault: func(err error) {
			if faults != nil {
				faults <- err
			}
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone already
	})
	if err := c.WaitConnected(within(t, 10*time.Second)); err != nil {
		t.Fatalf("%s does not come in: %v", name, err)
	}
	return c
}

func url(s *server.Server) string { return "tls://" + s.Addr().String() }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v still not: %s", d, what)
		}
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}
