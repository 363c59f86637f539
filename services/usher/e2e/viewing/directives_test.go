package viewing_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
)

// orders brings a directive into force as the command line does, which works on Postgres alone.
func (c *cluster) orders(kind directive.Kind, action directive.Action, change func(*directive.Directive)) directive.Directive {
	c.t.Helper()
	d := directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: kind, Action: action, At: time.Now().UTC(), Until: time.Now().UTC().Add(time.Hour),
		Reason: "a test", Author: "e2e",
	}
	change(&d)
	must(c.t, d.Validate())
	_, err := c.store.Direct(c.t.Context(), d, 50)
	must(c.t, err)
	return d
}

func (c *cluster) revoke(d directive.Directive) {
	c.t.Helper()
	done, err := c.store.RevokeDirective(c.t.Context(), d.Kind, d.ID, "e2e", "over")
	must(c.t, err)
	if !done {
		c.t.Fatalf("%s was not in force", d.ID)
	}
}

// becomes polls a viewer at an edge until he is answered with status, and returns how long it took.
func (c *cluster) becomes(what string, ask func() *http.Request, status int) time.Duration {
	c.t.Helper()
	begin := time.Now()
	c.eventually(patience, what, func() bool { return c.do(ask()).status == status })
	return time.Since(begin)
}

func ofUser(user string) func(*directive.Directive) {
	return func(d *directive.Directive) { d.Realm, d.User = "main", user }
}

func TestBannedEverywhere(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 2, policy: endPolicy})
	var banned, freed []time.Duration
	for round, criteria := range []func(user string) func(*directive.Directive){
		ofUser,
		ofUser,
		func(user string) func(*directive.Directive) {
			return func(d *directive.Directive) { d.Device = "203.0.113.9 TV of " + user }
		},
		func(user string) func(*directive.Directive) {
			return func(d *directive.Directive) { d.Token = c.keyer.Fingerprint(c.sign("news", user)) }
		},
	} {
		user := fmt.Sprint("user", round)
		tv, other := c.viewerOf(user, "news", "TV of "+user), c.viewerOf("other", "news", "Phone")
		c.playsOn(tv, c.edges...)
		c.playsOn(other, c.edges...)
		d := c.orders(directive.Ban, directive.Deny, criteria(user))
		ended := time.Now()
		for edge := range c.edges {
			banned = append(banned, c.gone(tv, edge, ended, "banned"))
		}
		c.playsOn(other, c.edges...)
		rows := c.live(pgstore.SessionFilter{User: user, Closed: true})
		if len(rows) == 0 || rows[0].CloseReason == nil || *rows[0].CloseReason != "banned" {
			t.Errorf("%s: his sessions are %+v, want one closed as banned", user, rows)
		}
		c.revoke(d)
		for _, edge := range c.edges {
			freed = append(freed, c.becomes("a viewer whose ban is over", func() *http.Request { return tv.nginx(edge) }, http.StatusOK))
		}
	}
	promptly(t, "a ban on every edge", everywhere, banned)
	promptly(t, "the end of a ban on every edge", everywhere, freed)
	c.eventually(patience, "everything is told", func() bool {
		left, err := c.store.Untold(t.Context(), 10)
		return err == nil && len(left) == 0
	})
	for _, r := range c.rows(pgstore.DecisionFilter{User: "user0", Outcome: "deny"}) {
		full, err := c.store.Decision(t.Context(), r.ID)
		must(t, err)
		said := false
		for _, s := range full.Steps {
			said = said || strings.Contains(s.Text, "by e2e, until") || s.Name == "bar"
		}
		if r.Reason != "banned" || !said {
			t.Errorf("row %s %s with steps %+v, want which ban it was", r.Reason, r.ID, full.Steps)
		}
	}
}

func TestANetworkIsBannedWithoutAWorker(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 3, workers: 2, policy: endPolicy})
	tv := c.viewerOf("anna", "news", "TV")
	c.playsOn(tv, c.edges...)
	c.orders(directive.Override, directive.Deny, func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.0/24") })
	ended := time.Now()
	var took []time.Duration
	for edge := range c.edges {
		took = append(took, c.gone(tv, edge, ended, "override"))
	}
	promptly(t, "an override on every edge", everywhere, took)
	asked := c.asked()
	for range 20 {
		c.want("from that network", c.do(tv.nginx(c.edges[0])), http.StatusForbidden, "override")
	}
	if got := c.asked(); got != asked {
		t.Errorf("workers were asked %d times", got-asked)
	}
	far := tv
	far.ip = "198.51.100.7"
	c.want("from another network", c.do(far.nginx(c.edges[0])), http.StatusOK, "")
}

const portalPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 60s}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", token: ["query:token"], budget: 10s}
checks:
  portal: {type: http, url: "@BACKEND@/check"}
streams:
  - {match: "**", auth: portal, limit: {sessions: 1, max: 1, mode: refuse}}
`

// nightPortal is a subscriber system that can refuse everybody.
type nightPortal struct {
	*httptest.Server
	refuses atomic.Bool
	asked   atomic.Int64
}

func newNightPortal(t *testing.T) *nightPortal {
	p := new(nightPortal)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if p.refuses.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-UserId", strings.TrimPrefix(r.URL.Query().Get("token"), "for-"))
	}))
	t.Cleanup(p.Close)
	return p
}

func TestTheNightOnWhichThePortalRefusesEverybody(t *testing.T) {
	t.Parallel()
	p := newNightPortal(t)
	c := setup(t, shape{edges: 2, workers: 2, policy: strings.ReplaceAll(portalPolicy, "@BACKEND@", p.URL)})
	n := 0
	on := func(user, stream string) *http.Request {
		n++
		v := viewer{node: "web1", stream: stream, token: "for-" + user, ip: "203.0.113.9", agent: user + "'s TV"}
		return v.nginx(c.edges[n%len(c.edges)])
	}
	device := func(user, agent string) *http.Request {
		v := viewer{node: "web1", stream: "news", token: "for-" + user, ip: "203.0.113.9", agent: agent}
		return v.nginx(c.edges[0])
	}
	c.want("anna before", c.do(on("anna", "news")), http.StatusOK, "")
	c.want("berta before", c.do(on("berta", "news")), http.StatusOK, "")
	p.refuses.Store(true)
	c.want("anna at night", c.do(on("anna", "sport")), http.StatusForbidden, "refused")
	c.want("berta at night", c.do(on("berta", "sport")), http.StatusForbidden, "refused")

	// The VIP first, although the portal says no and has said so.
	vip := c.orders(directive.Override, directive.Allow, ofUser("anna"))
	c.becomes("anna is let in", func() *http.Request { return on("anna", "sport") }, http.StatusOK)
	c.want("berta is not", c.do(on("berta", "film")), http.StatusForbidden, "refused")
	c.want("nor is a stranger", c.do(on("zoe", "film")), http.StatusForbidden, "refused")
	c.revoke(vip)
	c.becomes("anna is refused again", func() *http.Request { return on("anna", fmt.Sprint("film", n)) }, http.StatusForbidden)

	// Then everybody, without asking; their limits go on counting.
	c.orders(directive.Override, directive.Allow, func(d *directive.Directive) { d.Check = "portal" })
	c.becomes("berta is let in", func() *http.Request { return on("berta", "sport") }, http.StatusOK)
	c.becomes("also by the other worker", func() *http.Request { return on("zoe", fmt.Sprint("film", n)) }, http.StatusOK)
	c.eventually(patience, "no worker asks the portal", func() bool {
		asked := p.asked.Load()
		for i := range 8 {
			c.do(on(fmt.Sprint("somebody", i), fmt.Sprint("film", n)))
		}
		return p.asked.Load() == asked
	})
	c.want("berta on a second device", c.do(device("berta", "berta's phone")), http.StatusForbidden, "limit")
	for _, r := range c.rows(pgstore.DecisionFilter{User: "berta", Stream: "sport", Outcome: "allow"}) {
		if r.Reason != "override" {
			t.Errorf("berta was let in because of %s, want override", r.Reason)
		}
	}
	c.orders(directive.Ban, directive.Deny, ofUser("berta"))
	c.becomes("a ban stands above it", func() *http.Request { return on("berta", "sport") }, http.StatusForbidden)
}

func TestOneScreenMoreForAnHour(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: endPolicy})
	tv, phone, tablet := c.viewerOf("anna", "strict-news", "TV"), c.viewerOf("anna", "strict-news", "Phone"), c.viewerOf("anna", "strict-news", "Tablet")
	c.playsOn(tv, c.edges[0])
	c.want("a second screen", c.do(phone.nginx(c.edges[1])), http.StatusForbidden, "limit")
	d := c.orders(directive.Override, directive.Limit, func(d *directive.Directive) { ofUser("anna")(d); d.Limit = 2 })
	c.becomes("the second screen plays", func() *http.Request { return phone.nginx(c.edges[1]) }, http.StatusOK)
	c.playsOn(tv, c.edges[0])
	c.want("a third screen", c.do(tablet.nginx(c.edges[0])), http.StatusForbidden, "limit")
	other := c.viewerOf("berta", "strict-news", "TV")
	c.playsOn(other, c.edges[0])
	c.want("somebody else's second", c.do(c.viewerOf("berta", "strict-news", "Phone").nginx(c.edges[0])), http.StatusForbidden, "limit")
	c.revoke(d)
	n := 0
	c.eventually(patience, "new screens count as before", func() bool {
		for _, s := range c.live(pgstore.SessionFilter{User: "anna"}) {
			if s.UserAgent != "TV" {
				_, err := c.store.KillSession(t.Context(), s.ID, 0)
				must(t, err)
			}
		}
		n++
		return c.do(c.viewerOf("anna", "strict-news", fmt.Sprint("Screen ", n)).nginx(c.edges[0])).reason == "limit"
	})
}

const cutOffPolicy = `
version: 1
defaults: {on_unavailable: allow, lease: 1s, idle: 60s}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 1s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "**", auth: site, limit: {sessions: 2}}
`

func TestABanHoldsWhateverIsAway(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: cutOffPolicy})
	user, network := c.viewerOf("anna", "news", "TV"), c.viewerOf("berta", "news", "TV")
	network.ip = "198.51.100.7"
	free := c.viewerOf("cid", "news", "Radio")
	for _, v := range []viewer{user, network, free} {
		c.playsOn(v, c.edges...)
	}
	c.orders(directive.Ban, directive.Deny, ofUser("anna"))
	c.orders(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Network = netip.MustParsePrefix("198.51.100.0/24") })
	for edge := range c.edges {
		c.gone(user, edge, time.Now(), "banned")
		c.gone(network, edge, time.Now(), "banned")
	}
	hold := func(what string) {
		t.Helper()
		for _, edge := range c.edges {
			c.want(what+": the network", c.do(network.nginx(edge)), http.StatusForbidden, "banned")
			c.want(what+": the user", c.do(user.nginx(edge)), http.StatusForbidden, "banned")
			c.want(what+": whoever is not meant", c.do(free.nginx(edge)), http.StatusOK, "")
		}
	}
	c.gate.Shut()
	begin := time.Now()
	for pace := time.NewTicker(100 * time.Millisecond); time.Since(begin) < 3*time.Second; <-pace.C {
		hold("without postgres")
	}
	c.gate.Open()
	c.nats.Stop()
	begin = time.Now()
	for pace := time.NewTicker(300 * time.Millisecond); time.Since(begin) < 5*time.Second; <-pace.C {
		hold("cut off") // longer than an edge needs to notice
	}
	stranger := c.viewerOf("dora", "news", "Tablet")
	c.want("cut off: the rule lets strangers in", c.do(stranger.nginx(c.edges[0])), http.StatusOK, "")
	stranger.ip = network.ip
	c.want("cut off: a stranger of that network", c.do(stranger.nginx(c.edges[0])), http.StatusForbidden, "banned")
}
