package vectors_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide/decidetest"
)

// kinds are all kinds of middleware, each with the keys that its check needs.
var kinds = map[string]string{
	"http": "", "ministra": "", "ministra json": ", variant: json", "iptvportal": "", "iptvportal flussonic": ", variant: flussonic",
	"smarty": ", send_name: true, send_ip: true", "flussonic": "", "flussonic post": ", method: post",
}

// budget is what the Astra of these tests gives us.
const budget = 800 * time.Millisecond

// hostilePolicy has one check by a backend at that address, and another by one that is well.
func hostilePolicy(kind, wicked, well string) string {
	name, _, _ := strings.Cut(kind, " ")
	return fmt.Sprintf(`
version: 1
defaults: {on_unavailable: deny}
nodes:
  n1: {caller: astra, from: [127.0.0.1], budget: %s}
checks:
  bad: {type: %s, url: "http://%s/base?key=OPERATORSKEY"%s}
  good: {type: http, url: "http://%s/check"}
streams:
  - {match: "bad/*", auth: bad}
  - {match: "good/*", auth: good}
`, budget, name, wicked, kinds[kind], well)
}

// wickedness is what a backend can do, and whether a kind that looks at no bodies may believe it:
// a 200 with the right head is a yes whatever follows.
var wickedness = map[string]struct {
	answer func(*wicked, net.Conn)
	body   bool
}{
	"hangs":                            {answer: repeat("", "", time.Hour)},
	"drips a head":                     {answer: repeat(everybody+"X-Fill: ", "a", 10*time.Millisecond)},
	"drips a body":                     {answer: repeat(everybody+"Content-Length: 1000000\r\n\r\n", "{", 10*time.Millisecond), body: true},
	"sends 100 MB":                     {answer: megabytes(everybody), body: true},
	"sends 100 MB that may be a page":  {answer: megabytes("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"), body: true},
	"drips what may become a page":     {answer: repeat("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n", " ", 10*time.Millisecond)},
	"sends garbage":                    {answer: once("\x16\x03\x01\x02\x00\xffgarbage\n\n")},
	"sends garbage without end":        {answer: repeat("\x16\x03\x01", "\x00\xffgarbage", 0)},
	"sends everybody to a login page":  {answer: login},
	"is a captive page":                {answer: captive},
	"closes one half":                  {answer: once("")},
	"closes one half within the head":  {answer: once("HTTP/1.1 200 OK\r\nX-UserId: every")},
	"sends a head of 10 MB":            {answer: once(everybody + strings.Repeat("X-Fill: "+strings.Repeat("a", 8000)+"\r\n", 1250) + "Content-Length: 0\r\n\r\n")},
	"sends headers without end":        {answer: repeat(everybody, "X-Fill: "+strings.Repeat("a", 8000)+"\r\n", 0)},
	"sends 100 Continue without end":   {answer: repeat("", "HTTP/1.1 100 Continue\r\n\r\n", 0)},
	"sends two lengths":                {answer: once(everybody + "Content-Length: 1\r\nContent-Length: 2\r\n\r\naa")},
	"breaks a header in two":           {answer: once("HTTP/1.1 200 OK\r\nX-UserId: a\r\n b\r\n\x00: c\r\n\r\n")},
	"answers before and after it asks": {answer: once("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" + everybody + "Content-Length: 0\r\n\r\n")},
}

// TestWickedBackends holds every kind against every wickedness over the whole chain: never a
// yes that the kind's rules do not want, an answer within the caller's budget, and
// for the viewers of another check at the same worker nothing that they would notice.
func TestWickedBackends(t *testing.T) {
	t.Parallel()
	for kindName := range kinds {
		t.Run(kindName, func(t *testing.T) {
			t.Parallel()
			bad, well := newWicked(t), newWicked(t)
			p := newPlace(t, decidetest.Source(t, hostilePolicy(kindName, bad.address, well.address)))
			p.real = true
			for name, is := range wickedness {
				c := p.chain(t, decidetest.HTTP, nil)
				bad.turn(is.answer)
				t.Run(name, func(t *testing.T) { c.against(t, kindName, is.body) })
				c.stop()
			}
		})
	}
}

// others are the viewers of the check that is well.
const others = 20

func (c *chain) against(t *testing.T, kind string, believes bool) {
	before := c.crowd(t, "before")
	done := make(chan struct{})
	var took time.Duration
	go func() {
		defer close(done)
		begin := time.Now()
		a := c.overHTTP(t, &decidetest.Question{Node: "n1", Stream: "bad/x", Token: "0123456789abcdef0123456789abcdef"}, "the viewer")
		took = time.Since(begin)
		reads := strings.HasPrefix(kind, "smarty") || kind == "ministra json"
		if a.outcome == string(access.Allow) && (reads || !believes) {
			t.Errorf("answer = %s %s, want a refusal", a.outcome, a.reason)
		}
		if a.row != nil {
			decidetest.SaysWho(t, a.reason, "", a.row.Steps)
		}
	}()
	during := c.crowd(t, "during")
	<-done
	if took > budget+slack {
		t.Errorf("the answer took %v of a budget of %v", took, budget)
	}
	// As a ratio to the same a moment before, since the machine does other things too; what is
	// too short to be told apart from noise is no harm.
	if during > 5*before && during > budget/2 {
		t.Errorf("others waited %v beside it, %v without it", during, before)
	}
}

// slack is what a busy machine may add to a budget.
const slack = 700 * time.Millisecond

// crowd is half of what the others waited, all at once, for their answers, which must be a yes.
func (c *chain) crowd(t *testing.T, when string) time.Duration {
	t.Helper()
	waits := make([]time.Duration, others)
	var asking sync.WaitGroup
	for i := range others {
		asking.Go(func() {
			begin := time.Now()
			a := c.overHTTP(t, &decidetest.Question{Node: "n1", Stream: "good/x", Token: fmt.Sprint("other-", when, i)}, fmt.Sprint("other ", when, i))
			waits[i] = time.Since(begin)
			if a.outcome != string(access.Allow) {
				t.Errorf("another viewer got %s %s %s", a.outcome, a.reason, when)
			}
		})
	}
	asking.Wait()
	slices.Sort(waits)
	return waits[others/2]
}
