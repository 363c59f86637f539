package e2e_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/subscriber"
	"usher.internal/libs/testkit"
)

// otlp receives what the processes export.
type otlp struct {
	*httptest.Server

	mu    sync.Mutex // guards what follows
	raw   bytes.Buffer
	spans []span
}

// span is one span with the process that made it.
type span struct {
	*spans.Span
	service string
}

func newOTLP(t *testing.T) *otlp {
	t.Helper()
	o := new(otlp)
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

// env makes a process export to it, soon.
func (o *otlp) env() []string {
	return []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT=" + o.URL,
		"OTEL_BSP_SCHEDULE_DELAY=50", "USHER_LOG_LEVEL=debug",
	}
}

// ServeHTTP takes an export.
func (o *otlp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := new(collector.ExportTraceServiceRequest)
	if err != nil || proto.Unmarshal(body, req) != nil {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.raw.Write(body)
	for _, rs := range req.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				o.spans = append(o.spans, span{s, service})
			}
		}
	}
}

// bytes is everything that was received.
func (o *otlp) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.raw.Bytes())
}

// tree is a trace as indented text, under the caller's span: siblings in the order of their start.
func (o *otlp) tree(trace, root string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	children := make(map[string][]span)
	for _, s := range o.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			parent := hex.EncodeToString(s.GetParentSpanId())
			children[parent] = append(children[parent], s)
		}
	}
	var b strings.Builder
	var write func(parent, indent string)
	write = func(parent, indent string) {
		slices.SortFunc(children[parent], func(a, b span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
		for _, s := range children[parent] {
			kind := strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"))
			fmt.Fprintf(&b, "%s%s: %s (%s)\n", indent, s.service, s.GetName(), kind)
			write(hex.EncodeToString(s.GetSpanId()), indent+"  ")
		}
	}
	write(root, "")
	return b.String()
}

const (
	callersSpan = "00f067aa0ba902b7"
	// wantTree is the one trace of a question that a middleware is asked about.
	wantTree = `edge: GET /v1/{caller}/{node} (server)
  edge: request usher.v1.auth.{region}.{edge} (client)
    worker: process usher.v1.auth.{region}.{edge} (server)
      worker: decide (internal)
        worker: middleware http (client)
      worker: ledger commit (client)
`
	memoryTree = "edge: GET /v1/{caller}/{node} (server)\n"
)

// traced is a fleet whose processes export to one receiver, with a backend that remembers what
// it was sent.
type traced struct {
	*fleet
	otlp     *otlp
	url      string
	admins   []string
	natsDir  string
	received func() http.Header
	load     *load
	warmed   int // questions until a worker answered
}

func setupTraced(t *testing.T) *traced {
	t.Helper()
	var mu sync.Mutex
	var header http.Header
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		header = r.Header.Clone()
	}))
	t.Cleanup(backend.Close)
	c := &traced{otlp: newOTLP(t), natsDir: t.TempDir(), received: func() http.Header {
		mu.Lock()
		defer mu.Unlock()
		return header
	}}
	c.load = &load{client: &http.Client{Timeout: 20 * time.Second}}
	c.fleet = assemble(t, startNATS(t, c.natsDir, "127.0.0.1:0").ClientURL(), testkit.DSN(t), `
  billing: {type: http, url: "`+backend.URL+`/check?operator=OPERATORSKEY", traceparent: true}
  portal: {type: ministra, url: "`+backend.URL+`/stalker_portal", timeout: 500ms}
  links: {type: secure_link, secret: "env:USHER_TEST_SECRET"}
  signed: {type: jwt, secret: "env:USHER_TEST_SECRET", claims: {user: sub}}
  own: {type: users, allow_password: true, playlist: {url: "http://tv.example/hls/{stream}", public: true}}
streams:
  - {match: "tv-*", auth: portal}
  - {match: "link-*", auth: links}
  - {match: "jwt-*", auth: signed}
  - {match: "own-*", auth: own, on_deny: {"*": "https://tv.example/{stream}/{reason}"}}
  - {match: "up-*", auth: billing}
  - {match: "**", auth: site}
`, append(c.otlp.env(), "USHER_TEST_SECRET="+checksSecret)...)
	c.admin = true
	r := c.recorder(t, "r1")
	e, url := c.edge(t, "e1")
	c.url = url
	for _, p := range append(c.workers(t, 1), r, e) {
		c.admins = append(c.admins, fmt.Sprintf("http://%v/metrics", p.said(t, "admin listens")["address"]))
	}
	// A worker says that it takes questions a moment before NATS knows.
	eventually(t, startWithin, "a worker answers", func() bool {
		c.warmed++
		return c.ask(fmt.Sprintf("/hls/warm-%d/index.m3u8?token=none", c.warmed), "").reason == "bad_token"
	})
	return c
}

// ask asks as nginx for a viewer, in the caller's own trace if one is given.
func (c *traced) ask(uri, traceparent string) reply {
	header := map[string]string{"X-Original-URI": uri, "X-Real-IP": "10.1.0.1", "User-Agent": "tv"}
	if traceparent != "" {
		header["Traceparent"] = traceparent
	}
	return c.load.ask("nginx", c.url+"/v1/nginx/web1", header)
}

func newTrace() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }

// TestOneTrace follows a question from its caller to Postgres.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	c := setupTraced(t)
	trace := newTrace()
	first := c.ask("/hls/up-1/index.m3u8?token=VIEWERSTOKEN", "00-"+trace+"-"+callersSpan+"-01")
	if first.status != http.StatusOK {
		t.Fatalf("the answer is %d %s (%v), want 200", first.status, first.reason, first.err)
	}
	eventually(t, startWithin, "six spans", func() bool { return strings.Count(c.otlp.tree(trace, callersSpan), "\n") >= 6 })
	if got := c.otlp.tree(trace, callersSpan); got != wantTree {
		t.Errorf("the trace is\n%swant\n%s", got, wantTree)
	}
	if got := c.received().Get("Traceparent"); !strings.HasPrefix(got, "00-"+trace+"-") {
		t.Errorf("the backend was sent traceparent %q, want trace %s", got, trace)
	}
	if got := c.text(t, "SELECT trace_id FROM usher.decisions WHERE decision_id = $1", [16]byte(first.decision)); got != trace {
		t.Errorf("the row says trace %q, want %s", got, trace)
	}

	// From memory: a span in a trace that its caller samples, and none in any other.
	unsampled, sampled := newTrace(), newTrace()
	for _, parent := range []string{"", "00-" + unsampled + "-" + callersSpan + "-00", "00-" + sampled + "-" + callersSpan + "-01"} {
		if r := c.ask("/hls/up-1/seg1.ts", parent); r.status != http.StatusOK || r.decision != first.decision {
			t.Fatalf("a segment is answered %d under %s, want 200 under %s", r.status, r.decision, first.decision)
		}
	}
	eventually(t, startWithin, "the span of the sampled segment", func() bool { return c.otlp.tree(sampled, callersSpan) != "" })
	if got := c.otlp.tree(sampled, callersSpan); got != memoryTree {
		t.Errorf("an answer from memory in a sampled trace makes\n%swant\n%s", got, memoryTree)
	}
	// Spans of one process come in order, so that others would have come by now.
	if got := c.questions() - c.warmed; got != 2 {
		t.Errorf("%d questions made a span at the edge, want 2", got)
	}
	// A trace id is always made, also where nothing is exported.
	other := c.ask("/hls/up-2/index.m3u8?token=VIEWERSTOKEN", "00-"+unsampled+"-"+callersSpan+"-00")
	eventually(t, startWithin, "the row of an unsampled question", func() bool {
		return c.text(t, "SELECT trace_id FROM usher.decisions WHERE decision_id = $1", [16]byte(other.decision)) == unsampled
	})
}

// questions counts the callers' questions that made a span.
func (c *traced) questions() (n int) {
	c.otlp.mu.Lock()
	defer c.otlp.mu.Unlock()
	for _, s := range c.otlp.spans {
		if s.service == "edge" && s.GetKind() == spans.Span_SPAN_KIND_SERVER {
			n++
		}
	}
	return n
}

// TestNoSecretIsTold: tokens, queries and secrets are in no span, log, metric, row or file.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	c := setupTraced(t)
	good := signer(t)("news", "anna")
	hash, _, _ := strings.Cut(good, "-")
	secrets := []string{
		good, hash, secret, checksSecret, "VIEWERSTOKEN", "VIEWERSQUERY", "VIEWERSPASSWORD", "VIEWERSLINKx22symbols-", "OPERATORSKEY",
		viewersJWT, viewersJWT[strings.LastIndexByte(viewersJWT, '.')+1:],
	}
	c.subscribe(t)
	sampled := "00-" + newTrace() + "-" + callersSpan + "-01"
	for uri, want := range map[string]int{
		"/hls/news/index.m3u8?token=" + good + "&q=VIEWERSQUERY":         200,
		"/hls/sport/index.m3u8?token=" + good + "&q=VIEWERSQUERY":        403,
		"/hls/news/index.m3u8?token=" + good + "x":                       403,
		"/hls/news/index.m3u8?token=" + good + "&token=" + good:          403,
		"/hls/up-1/index.m3u8?token=VIEWERSTOKEN&q=VIEWERSQUERY":         200,
		"/hls/up-2/index.m3u8?token=VIEWERSTOKEN%00&q=VIEWERSQUERY":      403,
		"/hls/../news/index.m3u8?token=" + good:                          403,
		"/hls/news/" + strings.Repeat("x", 10_000) + "?token=" + good:    403,
		"/hls/news/index.m3u8?token=VIEWERSTOKEN-1-2-3-VIEWERSQUERY&t=%": 403,
		// Each kind of proof, good and bad.
		"/hls/own-1/index.m3u8?token=anna:VIEWERSPASSWORD&q=VIEWERSQUERY":      200,
		"/hls/own-2/index.m3u8?token=VIEWERSTOKEN&q=VIEWERSQUERY":              200,
		"/hls/own-3/index.m3u8?token=berta:VIEWERSPASSWORD2&q=VIEWERSQUERY":    403,
		"/hls/own-4/index.m3u8?token=VIEWERSTOKEN2&q=VIEWERSQUERY":             403,
		"/hls/own-5/index.m3u8?token=VIEWERSTOKEN3&q=VIEWERSQUERY":             403,
		"/hls/link-1/index.m3u8?md5=VIEWERSLINKx22symbols-&expires=9999999999": 403,
		"/hls/link-2/index.m3u8?md5=VIEWERSLINKx22symbols-&md5=VIEWERSQUERY":   403,
		"/hls/jwt-1/index.m3u8?token=" + viewersJWT:                            403,
		"/hls/jwt-2/index.m3u8?token=" + viewersJWT + "x":                      403,
		"/hls/tv-1/index.m3u8?token=VIEWERSTOKEN&q=VIEWERSQUERY":               200,
	} {
		if r := c.ask(uri, sampled); r.status != want {
			t.Errorf("%.60s is answered %d %s, want %d", uri, r.status, r.reason, want)
		}
	}
	for _, list := range []string{"own/VIEWERSTOKEN", "own/VIEWERSTOKEN2", "own/anna:VIEWERSPASSWORD", "none/VIEWERSTOKEN"} {
		resp, err := http.Get(c.url + "/v1/playlist/" + list)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	// Also of an edge that nobody helps, of what it reports then, and of the last words of all.
	for _, p := range c.all {
		if strings.HasPrefix(p.name, "w") {
			p.stop(t)
		}
	}
	c.ask("/hls/news/index.m3u8?token="+strings.Replace(good, "-", "-a", 1), sampled)
	c.settled(t, c.load.since(time.Time{}))
	for _, metrics := range c.admins[1:] {
		resp, err := http.Get(metrics)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || len(text) == 0 {
			t.Fatalf("metrics: %v", err)
		}
		silent(t, "metrics of "+metrics, text, append(secrets, "anna", "news"))
	}
	for _, p := range c.all {
		p.stop(t)
	}
	if c.questions() == c.warmed {
		t.Error("no question made a span: nothing was scanned")
	}
	silent(t, "what was exported", c.otlp.bytes(), secrets)
	silent(t, "the logs", []byte(c.logs()), secrets)
	c.silentDatabase(t, secrets)
	silentFiles(t, c.natsDir, secrets)
}

// checksSecret is what links and tokens are signed with, viewersJWT one that nobody signed.
const (
	checksSecret = "SECRETofCHECKS-secret-of-checks-32"
	viewersJWT   = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.VIEWERSTOKENxVIEWERSTOKENxVIEWERSTOKENxVIEW"
)

// subscribe makes an own subscriber with a token and a password, and bans another's token.
func (f *fleet) subscribe(t *testing.T) {
	t.Helper()
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: f.dsn, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	keyer, err := access.NewKeyer([]byte("an example key of 32 bytes only!"))
	if err != nil {
		t.Fatal(err)
	}
	login, password, token := "anna", subscriber.HashPassword("VIEWERSPASSWORD"), keyer.Fingerprint("VIEWERSTOKEN")
	if err := store.AddSubscriber(t.Context(), "main", "anna", pgstore.SubscriberEdit{Login: &login, Password: &password, Token: &token}); err != nil {
		t.Fatal(err)
	}
	_, err = store.Direct(t.Context(), directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: directive.Ban, Action: directive.Deny, Token: keyer.Fingerprint("VIEWERSTOKEN3"),
		At: time.Now(), Reason: "shared", Author: "test",
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
}

func silent(t *testing.T, where string, text []byte, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if at := bytes.Index(text, []byte(s)); at >= 0 {
			t.Errorf("%s: %s stands in …%q", where, s, text[max(0, at-200):min(len(text), at+len(s)+50)])
		}
	}
}

const tablesSQL = `
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'p', 'v')`

// silentDatabase looks at every column of every table.
func (f *fleet) silentDatabase(t *testing.T, secrets []string) {
	t.Helper()
	rows, err := f.pool.Query(t.Context(), tablesSQL)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	for _, table := range tables {
		rows, err := f.pool.Query(t.Context(), "SELECT t::text FROM "+table+" t")
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", table, err)
		}
		here := secrets
		if table == "usher.policy_revision" {
			here = withoutOperators(secrets)
		}
		silent(t, table, []byte(strings.Join(all, "\n")), here)
	}
}

// withoutOperators leaves out what the operator has written into his own policy.
func withoutOperators(secrets []string) []string {
	return slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return s == "OPERATORSKEY" })
}

// silentFiles looks at what NATS has stored.
func silentFiles(t *testing.T, dir string, secrets []string) {
	t.Helper()
	scanned := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		scanned += len(text)
		// The policy is in the workers' bucket as it was written.
		silent(t, path, text, withoutOperators(secrets))
		return nil
	})
	if err != nil || scanned == 0 {
		t.Errorf("%d bytes of NATS were scanned: %v", scanned, err)
	}
}
