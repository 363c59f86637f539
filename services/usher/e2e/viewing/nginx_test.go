package viewing_test

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
)

const (
	shortIdle  = 2 * time.Second
	shortLease = 1500 * time.Millisecond
	// leaseJitter is the part of a lease by which an edge shortens it at most.
	leaseJitter = 0.2
	// sweep and denial are the edge's: how often it looks for silence, how long it repeats a no.
	sweep, denial = time.Second, time.Second
)

const nginxPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 120s, idle: 2s}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**", budget: 10s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16}
streams:
  - match: "brief"
    auth: site
    lease: 1500ms
  - match: "**"
    auth: site
    limit: {sessions: 2, by: user, mode: refuse}
`

func TestRealNginx(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(*cluster, string){
		projectREADME: func(c *cluster, server string) {
			c.threePlayers(server)
			c.forgers(server)
			c.leaseDue(server)
		},
		forwardauthREADME: (*cluster).forgers,
	} {
		t.Run("with the snippet of "+name, func(t *testing.T) {
			t.Parallel()
			c := setup(t, shape{edges: 1, workers: 2, policy: nginxPolicy})
			play(c, startNginx(t, name, c.edges[0], "news", "sport", "brief"))
		})
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// threePlayers of one user share two seats.
func (c *cluster) threePlayers(server string) {
	t := c.t
	token := c.signFor("news", "family", loopback, true)
	tv, phone, tablet := c.player("TV", server, "news", token), c.player("Phone", server, "news", token), c.player("Tablet", server, "news", token)
	for _, p := range []*player{tv, phone} {
		if got := p.open(0); got != http.StatusOK {
			t.Fatalf("%s: answered %d, want 200: two seats are free", p.agent, got)
		}
	}
	if got := c.asked(); got != 2 {
		t.Errorf("workers were asked %d questions for two openings of three files each, want 2", got)
	}
	if got := tablet.open(1); got != http.StatusForbidden {
		t.Errorf("the third player: answered %d, want 403", got)
	}
	stopTV, stopPhone := tv.watch(40*time.Millisecond), phone.watch(40*time.Millisecond)
	defer stopTV()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	refused := 1
	for begin := time.Now(); time.Since(begin) < shortIdle+sweep; refused++ {
		<-pace.C
		if got := tablet.open(1); got != http.StatusForbidden {
			t.Errorf("the third player: answered %d while two play, want 403", got)
		}
	}
	silent := stopPhone()
	for {
		<-pace.C
		got := tablet.open(1)
		if got == http.StatusOK {
			break
		}
		if refused++; got != http.StatusForbidden || time.Since(silent) > patience {
			t.Fatalf("the third player, %v after the second stopped: answered %d", time.Since(silent), got)
		}
	}
	if after := time.Since(silent); after < shortIdle || after > shortIdle+sweep+denial+5*time.Second {
		t.Errorf("the third player came in %v after the second stopped, want soon after %v", after, shortIdle)
	}
	if got := tablet.play(); got != http.StatusOK {
		t.Errorf("the third player's segment: answered %d, want 200", got)
	}
	if got := phone.play(); got != http.StatusForbidden {
		t.Errorf("the second player comes back without his token: answered %d, want 403", got)
	}
	if got := phone.open(0); got != http.StatusForbidden {
		t.Errorf("the second player comes back with his token: answered %d, want 403: his seat is taken", got)
	}
	c.familyRows(refused + 1)
}

// familyRows counts who asked workers: three openings, and refusals of which none was
// answered twice within the time that an edge repeats it.
func (c *cluster) familyRows(refused int) {
	t := c.t
	asked := c.asked()
	rows := c.rows(pgstore.DecisionFilter{User: "family"})
	allowed, denied, repeats := 0, 0, 0
	for _, r := range rows {
		if r.Outcome == "allow" {
			allowed++
			continue
		}
		denied++
		if r.Reason != "limit" {
			t.Errorf("denied because of %s, want limit", r.Reason)
		}
	}
	if allowed != 3 || asked != allowed+denied {
		t.Errorf("workers were asked %d questions; %d rows allow and %d deny; want 3 that allow, and no question besides these",
			asked, allowed, denied)
	}
	for _, s := range c.live(pgstore.SessionFilter{User: "family", Closed: true}) {
		if (s.ClosedAt != nil) != (s.UserAgent == "Phone") || s.ClosedAt != nil && *s.CloseReason != string(access.CloseIdle) {
			t.Errorf("the session of %s ended at %v, want that of the phone alone, idle", s.UserAgent, s.ClosedAt)
		}
		if s.Rechecks != 0 {
			t.Errorf("the session of %s was decided again although its lease was not due", s.UserAgent)
		}
	}
	c.eventually(patience, "refusals from memory are counted in the rows that they repeat", func() bool {
		repeats = 0
		for _, r := range c.rows(pgstore.DecisionFilter{User: "family", Outcome: "deny"}) {
			repeats += int(r.Repeats)
		}
		return denied+repeats == refused
	})
}

// forgers send what only nginx may say.
func (c *cluster) forgers(server string) {
	t := c.t
	mine, elsewhere := c.signFor("sport", "honest", loopback, true), c.signFor("sport", "forger", netip.MustParseAddr("203.0.113.9"), true)
	forged := http.Header{
		"X-Original-Uri": {"/hls/sport/index.m3u8?token=" + mine}, "X-Original-Url": {"http://x/hls/sport/index.m3u8?token=" + mine},
		"X-Original-Method": {"GET"}, "X-Real-Ip": {"203.0.113.9"}, "X-Forwarded-For": {"203.0.113.9"},
		"X-Forwarded-Uri": {"/hls/sport/index.m3u8?token=" + mine}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Host": {"x"},
		"Forwarded": {"for=203.0.113.9"}, "X-Session-Id": {"1"}, "X-Usher-Decision": {"allow"},
	}
	for _, try := range []struct {
		what, token string
		header      http.Header
		status      int
	}{
		{"a token for another address", elsewhere, nil, 403},
		{"a token for another address and that address in all headers", elsewhere, forged, 403},
		{"no token but somebody's in the headers", "", forged, 403},
		{"a good token", mine, nil, 200},
		{"a good token and forged headers", mine, forged, 200},
		{"again", mine, forged, 200},
	} {
		p := c.player("Forger", server, "sport", try.token)
		p.header = try.header
		if got := p.open(0); got != try.status {
			t.Errorf("%s: answered %d, want %d", try.what, got, try.status)
		}
	}
	for _, r := range c.rows(pgstore.DecisionFilter{Node: "web1"}) {
		if r.IP == nil || *r.IP != loopback || r.Stream != "sport" && r.Stream != "news" {
			t.Errorf("a row about %v on %s: a header of the viewer was believed", r.IP, r.Stream)
		}
	}
	if seats := c.live(pgstore.SessionFilter{Stream: "sport"}); len(seats) != 1 || *seats[0].User != "honest" {
		t.Errorf("sessions on sport: %+v, want the one of honest", seats)
	}
}

// leaseDue plays under a short lease: a question goes to a worker when the lease is due, and at
// no other request.
func (c *cluster) leaseDue(server string) {
	t := c.t
	p := c.player("Lessee", server, "brief", c.signFor("brief", "lessee", loopback, true))
	asked, questions := c.asked(), 0
	var begun, ended time.Time // of the request that brought the last question
	fetch := func() int { return p.open(0) }
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for questions < 4 {
		<-pace.C
		begin := time.Now()
		if got := fetch(); got != http.StatusOK {
			t.Fatalf("answered %d after %d questions, want 200", got, questions)
		}
		fetch = p.play
		end, now := time.Now(), c.asked()
		switch n := now - asked; {
		case n == 0 && begin.After(ended.Add(shortLease)):
			t.Fatalf("answered from memory %v after the last question, the lease is %v", begin.Sub(ended), shortLease)
		case n == 0:
			continue
		case n > 1:
			t.Fatalf("one request made %d questions", n)
		case questions > 0 && end.Sub(begun) < time.Duration((1-leaseJitter)*float64(shortLease)):
			t.Errorf("asked again after %v, the lease is %v", end.Sub(begun), shortLease)
		}
		asked, begun, ended = now, begin, end
		questions++
	}
	rows, seats := c.rows(pgstore.DecisionFilter{User: "lessee"}), c.live(pgstore.SessionFilter{User: "lessee"})
	if len(rows) != 1 || len(seats) != 1 || int(seats[0].Rechecks) != questions-1 {
		t.Errorf("%d questions left rows %+v and sessions %+v, want one row and a session with %d rechecks", questions, rows, seats, questions-1)
	}
}
