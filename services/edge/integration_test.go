package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge"
	"usher.internal/services/edge/edgetest"
)

const region = "eu"

// cluster is a real NATS with one edge and a worker that does as the test says.
type cluster struct {
	worker *bus.Conn
	url    string // of the edge
	svc    *edge.Service
	stop   func() // of the edge, waits until it has ended
	decide atomic.Pointer[bus.AuthHandler]
	signs  chan *usherv1.SeatSign
	asked  atomic.Int64
}

func policy(revision int64) map[string]*usherv1.Projection {
	return map[string]*usherv1.Projection{names.AnyProjectionKey: {
		Revision: revision,
		Nodes: []*usherv1.NodeView{
			{Name: "n1", Caller: "astra", From: []string{"127.0.0.1/32"}, HoldMs: time.Hour.Milliseconds()},
			{Name: "web1", Caller: "nginx", From: []string{"127.0.0.1/32"}, IdleMs: 3000},
		},
		Streams: []*usherv1.StreamView{{Match: "**", OnUnavailable: "deny"}},
	}}
}

func connect(t *testing.T, url, name string) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(bus.Config{Name: name, Region: region, URL: url}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone already
	})
	if err := c.WaitConnected(t.Context()); err != nil {
		t.Fatalf("WaitConnected: %v", err)
	}
	return c
}

func start(t *testing.T) *cluster {
	t.Helper()
	server := testkit.NATS(t)
	c := &cluster{worker: connect(t, server.ClientURL(), "w1"), signs: make(chan *usherv1.SeatSign, 1000)}
	if err := c.worker.EnsureStreams(t.Context(), region, 1); err != nil {
		t.Fatalf("EnsureStreams: %v", err)
	}
	c.allow()
	c.work(t)
	if err := c.worker.PutPolicy(t.Context(), &usherv1.PolicyRevision{Revision: 1}, policy(1)); err != nil {
		t.Fatalf("PutPolicy: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + l.Addr().String()
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	c.svc, err = edge.New(edge.Config{Name: "e1", Region: region},
		edge.Deps{Bus: connect(t, server.ClientURL(), "e1"), Keyer: keyer, Telemetry: telemetry.StartWith(nil), Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.svc.Run(ctx) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(c.stop)
	await(t, "readiness", func() bool { return c.svc.Ready() == nil })
	return c
}

// work serves questions, signs and ticks until the test ends.
func (c *cluster) work(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		_ = c.worker.ServeAuth(ctx, region, 8, 64, func(ctx context.Context, e string, m *usherv1.AuthRequest) *usherv1.AuthReply {
			c.asked.Add(1)
			return (*c.decide.Load())(ctx, e, m)
		})
	})
	wg.Go(func() {
		_ = c.worker.ServeSeats(ctx, region, 2, 64, func(_ context.Context, _ string, m *usherv1.SeatsRequest) *usherv1.SeatsReply {
			for _, s := range m.GetSigns() {
				c.signs <- proto.CloneOf(s)
			}
			return &usherv1.SeatsReply{Ok: true}
		})
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = c.worker.Tick(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

func (c *cluster) set(h bus.AuthHandler) { c.decide.Store(&h) }

func (c *cluster) allow() {
	c.set(func(_ context.Context, _ string, m *usherv1.AuthRequest) *usherv1.AuthReply { return edgetest.Allow(m) })
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// viewer asks as nginx would for a viewer's URI.
func (c *cluster) viewer(t *testing.T, uri, ua string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/v1/nginx/web1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Original-URI", uri)
	r.Header.Set("X-Real-IP", "203.0.113.7")
	r.Header.Set("User-Agent", ua)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res
}

func TestOverRealNATS(t *testing.T) {
	t.Parallel()
	c := start(t)
	if res := c.viewer(t, "/hls/a/i.m3u8?token=t", "VLC"); res.StatusCode != http.StatusOK {
		t.Fatalf("playlist: %d %s", res.StatusCode, res.Header.Get("X-Usher-Reason"))
	}
	for range 50 {
		if res := c.viewer(t, "/hls/a/1.ts", "VLC"); res.StatusCode != http.StatusOK {
			t.Fatalf("segment: %d", res.StatusCode)
		}
	}
	if got := c.asked.Load(); got != 1 {
		t.Errorf("worker was asked %d times for a playlist and 50 segments, want 1", got)
	}
	renewal := <-c.signs
	if renewal.GetClose() || renewal.GetRequests() != 51 {
		t.Errorf("first sign = %v, want a renewal with 51 requests", renewal)
	}
	if end := <-c.signs; !end.GetClose() || end.GetReason() != "idle" || string(end.GetSessionId()) != string(renewal.GetSessionId()) {
		t.Errorf("second sign = %v, want the close of the same session", end)
	}
}

func TestAKillReachesTheEdge(t *testing.T) {
	t.Parallel()
	c := start(t)
	var mu sync.Mutex
	var opened *usherv1.AuthReply
	var key []byte
	c.set(func(_ context.Context, _ string, m *usherv1.AuthRequest) *usherv1.AuthReply {
		mu.Lock()
		defer mu.Unlock()
		opened, key = edgetest.Allow(m), m.GetSessionKey()
		return opened
	})
	c.viewer(t, "/hls/a/i.m3u8?token=t", "VLC")
	mu.Lock()
	m := &usherv1.Control{
		Kind: "kill", SessionId: opened.GetSessionId(), SessionKey: key, Realm: "main", User: "alice",
		Reason: "killed", BarMs: 60_000, AtUnixMs: time.Now().UnixMilli(),
	}
	mu.Unlock()
	if _, err := c.worker.PublishControl(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var last *http.Response
	await(t, "the kill", func() bool {
		last = c.viewer(t, "/hls/a/i.m3u8?token=t", "VLC")
		return last.StatusCode == http.StatusForbidden
	})
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the kill took %v, more than a second", took)
	}
	if last.Header.Get("X-Usher-Reason") != "killed" {
		t.Errorf("reason = %q, want killed", last.Header.Get("X-Usher-Reason"))
	}
}

func TestRefusalsReachTheJournal(t *testing.T) {
	t.Parallel()
	c := start(t)
	res, err := http.Get(c.url + "/v1/astra/nobody/check?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	id := uuid.MustParse(res.Header.Get("X-Usher-Decision"))
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want 403", res.StatusCode)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := make(chan *usherv1.DecisionRow, 1)
	from := func(time.Time) (uint64, error) { return 0, nil }
	go func() {
		_ = c.worker.ReadJournal(ctx, region, from, 100, 100*time.Millisecond, func(_ context.Context, b bus.JournalBatch) error {
			for _, e := range b.Entries {
				if r := e.Entry.GetDecision(); r != nil && uuid.UUID(r.GetId()) == id {
					found <- r
				}
			}
			return nil
		})
	}()
	select {
	case r := <-found:
		if r.GetReason() != "unknown_node" || r.GetEdge() != "e1" || r.GetNode() != "nobody" || r.GetIp() != "127.0.0.1" {
			t.Errorf("row = %v", r)
		}
		if text := r.String(); strings.Contains(text, "secret") {
			t.Errorf("the row holds the query: %s", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the refusal never reached the journal")
	}
}

func TestAStopAnswersWhatWasAsked(t *testing.T) {
	t.Parallel()
	c := start(t)
	asked := make(chan struct{})
	c.set(func(_ context.Context, _ string, m *usherv1.AuthRequest) *usherv1.AuthReply {
		close(asked)
		time.Sleep(700 * time.Millisecond) // past the drain notice
		return edgetest.Allow(m)
	})
	status := make(chan int, 1)
	go func() { status <- c.viewer(t, "/hls/a/i.m3u8?token=t", "VLC").StatusCode }()
	<-asked
	c.stop()
	if got := <-status; got != http.StatusOK {
		t.Errorf("a question in flight at the stop got %d, want 200", got)
	}
}

func TestHTTPAsCallersSpeakIt(t *testing.T) {
	t.Parallel()
	c := start(t)
	astra := "X-Session-ID: %s\r\nX-Channel-ID: a001\r\nX-Real-IP: 10.0.0.5\r\nx-real-path: /play/a001/index.m3u8\r\n"
	cases := map[string]struct {
		raw  string
		want string
	}{
		"HTTP/1.0":                {"GET /v1/astra/n1/check?token=1 HTTP/1.0\r\n" + astra + "\r\n", "HTTP/1.0 200 OK"},
		"HTTP/1.1":                {"GET /v1/astra/n1/check?token=1 HTTP/1.1\r\nHost: e\r\n" + astra + "\r\n", "HTTP/1.1 200 OK"},
		"HEAD":                    {"HEAD /v1/astra/n1?token=1 HTTP/1.1\r\nHost: e\r\n" + astra + "\r\n", "HTTP/1.1 200 OK"},
		"POST with a body":        {"POST /v1/astra/n1/x/y?token=1 HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\n" + astra + "\r\nhello", "HTTP/1.1 200 OK"},
		"double slash":            {"GET /v1/astra/n1//check?token=1 HTTP/1.1\r\nHost: e\r\n" + astra + "\r\n", "HTTP/1.1 200 OK"},
		"star":                    {"OPTIONS * HTTP/1.1\r\nHost: e\r\n\r\n", "HTTP/1.1 403 Forbidden"},
		"token twice":             {"GET /v1/astra/n1/check?token=1&token=2 HTTP/1.1\r\nHost: e\r\n" + astra + "\r\n", "HTTP/1.1 403 Forbidden"},
		"bytes that are no UTF-8": {"GET /v1/astra/n1/check?token=\xff HTTP/1.1\r\nHost: e\r\n" + astra + "\r\n", "HTTP/1.1 403 Forbidden"},
		"a user agent of 1 MB": {"GET /v1/astra/n1/check?token=1 HTTP/1.1\r\nHost: e\r\n" + astra + "X-Real-UA: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
			"HTTP/1.1 431 Request Header Fields Too Large"},
		"not HTTP": {"\x16\x03\x01\x02\x00\r\n\r\n", "HTTP/1.1 400 Bad Request"},
	}
	i := 0
	for name, tc := range cases {
		i++
		raw := tc.raw
		if strings.Contains(raw, "X-Session-ID: %s") {
			raw = strings.Replace(raw, "%s", fmt.Sprint(i), 1)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			go func() { _, _ = io.WriteString(conn, raw) }() // the server may stop reading early
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || strings.TrimSpace(line) != tc.want {
				t.Errorf("answer %q (%v), want %q", strings.TrimSpace(line), err, tc.want)
			}
		})
	}
}

func TestAnEdgeLinksNeitherDatabaseNorServer(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/usher-edge").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, bad := range []string{"jackc/pgx", "nats-server", "usher.internal/libs/pgstore", "usher.internal/libs/natsd",
			"usher.internal/libs/decide", "usher.internal/libs/testkit", "callertest", "edgetest"} {
			if strings.Contains(pkg, bad) {
				t.Errorf("usher-edge links %s", pkg)
			}
		}
	}
}
