package decide_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/geo"
	"usher.internal/libs/policy"
)

// now is the clock of every test.
var now = time.Unix(1700000100, 0)

// caseFile is one file of testdata/cases: a policy and questions to it. Each
// question stands alone, unless it says that it follows the one before it.
type caseFile struct {
	Policy    string
	Backends  map[string]decidetest.Backend
	Questions []questionCase
}

type questionCase struct {
	Name     string
	Follows  bool // the engine of the question before goes on, with what it remembers
	Backends map[string]decidetest.Backend
	Down     []string // claims, known, grants
	Revoke   string   // ends the grants of this user first
	Later    config.Duration
	Country  string
	ASN      uint32
	Org      string

	Stream, Node, Token, Path, Query, UA, Referer, Host string
	IP                                                  string
	Running                                             bool
	Known                                               string // stream of the running session
	Action                                              access.Action

	Want wantCase
}

type wantCase struct {
	Outcome, Reason, Text, Location string
	Realm, User, Subject            string
	SessionName                     string `yaml:"session_name"`
	Own                             string // stream after aliasing, by default the one asked for
	Limit                           *int
	Mode                            string
	Lease, Seat                     config.Duration
	Unavailable                     bool
	Asked                           []string // hosts, each once
	Steps                           []string // "name: result", in order
}

func TestCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding cases: %v, %d files", err, len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var f caseFile
			d := yaml.NewDecoder(strings.NewReader(string(raw)))
			d.KnownFields(true)
			if err := d.Decode(&f); err != nil {
				t.Fatal(err)
			}
			var b *bench
			for _, q := range f.Questions {
				if b == nil || !q.Follows {
					b = newBench(t, f.Policy)
					b.set(f.Backends)
				}
				t.Run(q.Name, func(t *testing.T) { b.run(t, q) })
			}
		})
	}
}

// bench is an engine with doubles around it.
type bench struct {
	engine   *decide.Engine
	snapshot *policy.Snapshot
	keyer    *access.Keyer
	claims   *decidetest.Claims
	known    *decidetest.Known
	grants   *decidetest.Grants
	upstream *decidetest.Upstream
	mu       sync.Mutex // guards now
	own      *decidetest.Subscribers
	now      time.Time
	place    geo.Place
	last     map[string]int
}

func newBench(t testing.TB, source string) *bench {
	t.Helper()
	return newBenchWith(t, source, func(*decide.Deps) {})
}

// newBenchWith lets a test change what the engine works with.
func newBenchWith(t testing.TB, source string, change func(*decide.Deps)) *bench {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("SECRETKEY"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := policy.Parse("policy.yaml", []byte(strings.ReplaceAll(source, "file:/secret", "file:"+secret)), decide.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		snapshot: s, keyer: keyer, now: now, last: map[string]int{},
		claims: decidetest.NewClaims(), known: decidetest.NewKnown(), own: decidetest.NewSubscribers(),
		grants: decidetest.NewGrants(), upstream: decidetest.NewUpstream(),
	}
	d := decide.Deps{
		Keyer: keyer, Claims: b.claims, Known: b.known, Grants: b.grants, HTTP: b.upstream, Subscribers: b.own,
		Now:   b.clock,
		Place: func(netip.Addr) geo.Place { return b.place },
	}
	change(&d)
	b.engine, err = decide.New(s, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.engine.Close)
	return b
}

// clock is read in the background too.
func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) set(backends map[string]decidetest.Backend) {
	for host, backend := range backends {
		b.upstream.Set(host, backend)
	}
}

func (b *bench) run(t *testing.T, c questionCase) {
	t.Helper()
	b.set(c.Backends)
	b.mu.Lock()
	b.now = b.now.Add(c.Later.Duration())
	b.mu.Unlock()
	b.place = geo.Place{Country: c.Country, ASN: c.ASN, Org: c.Org}
	b.claims.Down(slices.Contains(c.Down, "claims"))
	b.known.Down(slices.Contains(c.Down, "known"))
	b.grants.Down(slices.Contains(c.Down, "grants"))
	if c.Revoke != "" {
		b.grants.Revoke(c.Revoke)
	}
	req := &access.Request{
		Node: "web", Stream: c.Stream, Token: c.Token, Path: c.Path, Query: c.Query, UserAgent: c.UA, Referer: c.Referer, Host: c.Host,
		Action: c.Action, IP: netip.MustParseAddr("203.0.113.7"),
	}
	if c.Node != "" {
		req.Node = c.Node
	}
	if c.IP != "" {
		req.IP = netip.MustParseAddr(c.IP)
	}
	if req.Query == "" && c.Token != "" {
		req.Query = "token=" + c.Token
	}
	if c.Running {
		req.Session, req.Known = uuid.New(), c.Known
	}
	v := b.engine.Decide(t.Context(), req)
	if v.Country != c.Country {
		t.Errorf("country = %q, want %q whatever was decided", v.Country, c.Country)
	}
	b.compare(t, c.Want, req, v)
	holdsNoSecrets(t, req, v)
}

func (b *bench) compare(t *testing.T, want wantCase, req *access.Request, v decide.Verdict) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s = %v, want %v", what, got, want)
		}
	}
	check("outcome", v.Outcome, want.Outcome)
	check("reason", v.Reason, want.Reason)
	check("location", v.Location, want.Location)
	check("user", v.User, want.User)
	if want.Own == "" {
		want.Own = req.Stream
	}
	check("stream", v.Stream, want.Own)
	check("session name", v.SessionName, want.SessionName)
	check("unavailable", v.Unavailable, want.Unavailable)
	if want.Realm != "" {
		check("realm", v.Realm, want.Realm)
	}
	if !strings.Contains(v.Text, want.Text) || v.Text == "" {
		t.Errorf("text = %q, want %q in it", v.Text, want.Text)
	}
	if want.Limit != nil {
		check("limit", v.Limit, *want.Limit)
	}
	if want.Mode != "" {
		check("mode", v.Mode, want.Mode)
	}
	if want.Lease != 0 {
		check("lease", v.Lease, want.Lease.Duration())
	}
	if want.Seat != 0 {
		check("seat", v.Seat, want.Seat.Duration())
	}
	if v.Outcome == access.Allow && v.Seat <= v.Lease+v.Lease/10 {
		t.Errorf("seat %v does not outlive the lease %v with its jitter", v.Seat, v.Lease)
	}
	switch want.Subject {
	case "user":
		check("subject", v.Subject, b.keyer.Key("user", v.Realm, v.User))
	case "":
	case "token":
		check("subject", v.Subject, b.keyer.Fingerprint(req.Token))
	case "ip":
		check("subject", v.Subject, b.keyer.Key("ip", req.IP.String()))
	default: // what a verifier named in place of a token
		check("subject", v.Subject, b.keyer.Fingerprint(want.Subject))
	}
	if want.Steps != nil {
		var got []string
		for _, s := range v.Steps {
			got = append(got, s.Name+": "+s.Result)
		}
		check("steps", strings.Join(got, ", "), strings.Join(want.Steps, ", "))
	}
	for _, host := range []string{"a.example", "b.example"} {
		n := b.upstream.Asked(host)
		if want.Asked != nil {
			check("questions to "+host, n-b.last[host], strings.Count(strings.Join(want.Asked, " "), host))
		}
		b.last[host] = n
	}
}

// holdsNoSecrets looks for token and query in everything that is kept of a decision.
func holdsNoSecrets(t *testing.T, req *access.Request, v decide.Verdict) {
	t.Helper()
	all := v.Text
	for _, s := range v.Steps {
		all += " " + s.Name + " " + s.Result + " " + s.Text
	}
	for _, secret := range []string{req.Token, req.Query} {
		if len(secret) > 4 && strings.Contains(all, secret) {
			t.Errorf("the verdict holds token or query: %s", all)
		}
	}
}
