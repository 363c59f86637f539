package decide_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/geo"
	"usher.internal/libs/policy"
)

// now is the clock of every test.
var now = decidetest.Now

func TestCases(t *testing.T) {
	t.Parallel()
	for _, f := range decidetest.Load(t, "testdata/cases") {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			var b *bench
			for i := range f.Questions {
				q := &f.Questions[i]
				if b == nil || !q.Follows {
					b = newBenchOver(t, f.Policy, decidetest.NewServers(t), func(*decide.Deps) {})
					b.set(f.Backends)
				}
				if !q.Skips(t, decidetest.Engine) {
					t.Run(q.Name, func(t *testing.T) { b.run(t, q) })
				}
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
	last     map[string]int // how often each host was asked before
}

func newBench(t testing.TB, source string) *bench {
	t.Helper()
	return newBenchWith(t, source, func(*decide.Deps) {})
}

// newBenchWith lets a test change what the engine works with.
func newBenchWith(t testing.TB, source string, change func(*decide.Deps)) *bench {
	t.Helper()
	return newBenchOver(t, source, decidetest.NewUpstream(), change)
}

// newBenchOver has the middlewares played elsewhere.
func newBenchOver(t testing.TB, source string, upstream *decidetest.Upstream, change func(*decide.Deps)) *bench {
	t.Helper()
	s, err := policy.Parse("policy.yaml", []byte(decidetest.Source(t, source)), decide.Kinds())
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
		grants: decidetest.NewGrants(), upstream: upstream,
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

func (b *bench) run(t *testing.T, c *decidetest.Question) {
	t.Helper()
	b.set(c.Backends)
	b.mu.Lock()
	b.now = c.Now(b.now)
	b.mu.Unlock()
	b.place = geo.Place{Country: c.Country, ASN: c.ASN, Org: c.Org}
	b.claims.Down(slices.Contains(c.Down, "claims"))
	b.known.Down(slices.Contains(c.Down, "known"))
	b.grants.Down(slices.Contains(c.Down, "grants"))
	if c.Revoke != "" {
		b.grants.Revoke(c.Revoke)
	}
	verdicts := make([]decide.Verdict, max(1, c.AtOnce))
	reqs := make([]*access.Request, len(verdicts))
	var asking sync.WaitGroup
	for i := range verdicts {
		reqs[i] = c.Request()
		asking.Go(func() { verdicts[i] = b.engine.Decide(t.Context(), reqs[i]) })
	}
	asking.Wait()
	for i, v := range verdicts {
		if v.Country != c.Country {
			t.Errorf("country = %q, want %q whatever was decided", v.Country, c.Country)
		}
		b.compare(t, &c.Want, reqs[i], v)
		decidetest.HoldsNoSecrets(t, reqs[i], v.Text, v.Steps)
		decidetest.SaysWho(t, string(v.Reason), v.Text, v.Steps)
	}
	b.asked(t, &c.Want)
}

func (b *bench) compare(t *testing.T, want *decidetest.Want, req *access.Request, v decide.Verdict) {
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
	check("stream", v.Stream, cmp.Or(want.Own, req.Stream))
	check("session name", v.SessionName, want.SessionName)
	check("unavailable", v.Unavailable, want.Unavailable)
	check("shadow", v.Shadow, want.Shadow)
	check("would", strings.TrimSpace(string(v.Would)+" "+string(v.WouldReason)), want.Would)
	if want.Told != nil {
		check("told", v.Told, *want.Told)
	}
	if want.Realm != "" {
		check("realm", v.Realm, want.Realm)
	}
	if !strings.Contains(v.Text, want.Text) || v.Text == "" {
		t.Errorf("text = %q, want %q in it", v.Text, want.Text)
	}
	if want.Archive != nil {
		check("archive", v.Reach.String(), *want.Archive)
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
}

// asked looks at what the middlewares were asked.
func (b *bench) asked(t *testing.T, want *decidetest.Want) {
	t.Helper()
	want.CheckSent(t, b.upstream, b.last)
	for _, host := range b.upstream.Hosts() {
		n := b.upstream.Asked(host)
		if got, wanted := n-b.last[host], want.Times(host); want.Asked != nil && got != wanted {
			t.Errorf("questions to %s = %d, want %d", host, got, wanted)
		}
		b.last[host] = n
	}
}
