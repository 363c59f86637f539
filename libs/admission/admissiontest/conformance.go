package admissiontest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// Harness is a ledger under test with the two levers that a ledger's users don't have.
type Harness interface {
	admission.Ledger
	// Expire makes a session's seat run out now.
	Expire(id uuid.UUID)
	// Kill ends a session as an operator does.
	Kill(id uuid.UUID, bar time.Duration)
	// Sweep closes what has expired and does what is due of soft limits, Pass lets time pass for them and for signs of life alone.
	Sweep()
	Pass(d time.Duration)
	// Live are the sessions that hold a seat, in the order of their opening.
	Live() []uuid.UUID
	// Rows is how many audit rows there are.
	Rows() int
}

// Run checks that a ledger keeps the contract of admission.Ledger; open gives a fresh, empty one.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	RunEnforced(t, open)
	run(t, open, map[string]func(*testing.T, *tester){
		"a limit in shadow touches nobody and says so":  testShadow,
		"shadow and enforcement don't see each other":   testShadowBeside,
		"in shadow only whom enforcement leaves counts": testShadowCounts,

		"each limit of a list counts its own subject":            testList,
		"nobody is evicted if another limit refuses":             testListRefuses,
		"one eviction serves several limits":                     testListEvicts,
		"a session counts from its next question on":             testListFills,
		"a session that moves needs a seat where it moves to":    testListMoves,
		"a list in shadow touches nobody":                        testListShadow,
		"a zap frees its seat in every limit":                    testListZap,
		"an expired seat is free in every limit":                 testListExpired,
		"a soft limit evicts the oldest in the end":              testSoft,
		"a soft limit closes first who shows no life":            testSoftIdle,
		"zapping beyond a soft limit gains no time":              testSoftZap,
		"a soft limit has an end":                                testSoftBound,
		"who falls below a soft limit by himself is not cut":     testSoftFalls,
		"a lowered soft limit cuts who is beyond it":             testSoftLowered,
		"the next open of an account does what is due of it too": testSoftByOpen,
	})
}

// RunEnforced is Run for a ledger that knows no limits that are tried out.
func RunEnforced(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, map[string]func(*testing.T, *tester){
		"an open takes a seat and writes one row":            testOpen,
		"refuse keeps the first and names the holders":       testRefuse,
		"evict_oldest takes the oldest seat and bars it":     testEvict,
		"the id of an evicted session bars nobody else":      testBarOfAnother,
		"the same session asked again is one":                testAgain,
		"a stored id is answered as stored":                  testStored,
		"a key used by another viewer never inherits":        testReused,
		"zapping is not a second viewer":                     testZap,
		"a device that plays on loses the courtesy":          testStillPlaying,
		"a closed seat is free at once":                      testClose,
		"a close after somebody else's renewal does nothing": testLateClose,
		"an expired seat is free and is not revived":         testExpire,
		"a killed session does not come back":                testKill,
		"a denial takes no seat and may end a session":       testAudit,
		"an unknown viewer keeps the running session":        testKeep,
		"a lowered limit is judged again":                    testLowered,
		"items of one batch act one after another":           testBatch,
		"one bad item never fails its neighbours":            testBadItem,
	})
}

func run(t *testing.T, open func(t *testing.T) Harness, tests map[string]func(*testing.T, *tester)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, &tester{T: t, Harness: open(t)})
		})
	}
}

type tester struct {
	*testing.T
	Harness
}

func (t *tester) one(it admission.Item) admission.Result {
	t.Helper()
	return t.all(it)[0]
}

func (t *tester) all(items ...admission.Item) []admission.Result {
	t.Helper()
	r, err := t.Apply(context.Background(), items)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return r
}

func (t *tester) want(r admission.Result, o access.Outcome, why access.Reason) {
	t.Helper()
	if r.Err != nil || r.Outcome != o || r.Reason != why {
		t.Fatalf("result = %s %s (err %v), want %s %s", r.Outcome, r.Reason, r.Err, o, why)
	}
}

func (t *tester) live(n int) {
	t.Helper()
	if got := len(t.Live()); got != n {
		t.Fatalf("%d live sessions, want %d", got, n)
	}
}

func (t *tester) rows(n int) {
	t.Helper()
	if got := t.Rows(); got != n {
		t.Fatalf("%d audit rows, want %d", got, n)
	}
}

func (t *tester) sign(id uuid.UUID, age time.Duration, closes bool) admission.Result {
	t.Helper()
	return t.one(admission.Item{Sign: &admission.Sign{Session: id, Age: age, Close: closes, Reason: access.CloseIdle, Requests: 3}})
}

func box(n int) Viewer {
	return Viewer{User: "u", Device: fmt.Sprintf("box%d", n), Limit: 2, Mode: access.RefuseNew}
}

func evictBox(n int) Viewer {
	v := box(n)
	v.Mode = access.EvictOldest
	return v
}

func testOpen(t *testing.T, h *tester) {
	it := box(1).Open("a")
	r := h.one(it)
	h.want(r, access.Allow, access.Granted)
	if !r.Live || r.Session != it.Open.Session || r.Decision != it.Open.ID || r.User != "u" || r.Repeated {
		t.Fatalf("result = %+v", r)
	}
	h.live(1)
	h.rows(1)
}

func testRefuse(t *testing.T, h *tester) {
	a, b := h.one(box(1).Open("a")), h.one(box(2).Open("b"))
	r := h.one(box(3).Open("c"))
	h.want(r, access.Deny, access.Limit)
	if len(r.Holders) != 2 || r.Holders[0].Session != a.Session || r.Holders[1].Session != b.Session || r.Holders[0].Stream != "a" {
		t.Fatalf("holders = %+v", r.Holders)
	}
	h.live(2)
	h.rows(3)
}

func testEvict(t *testing.T, h *tester) {
	a := h.one(evictBox(1).Open("a"))
	h.one(evictBox(2).Open("b"))
	r := h.one(evictBox(3).Open("c"))
	h.want(r, access.Allow, access.Granted)
	if len(r.Ended) != 1 || r.Ended[0].Session != a.Session || r.Ended[0].Reason != access.CloseEvicted || r.Ended[0].Bar <= 0 || !r.Ended[0].BarDevice || r.Ended[0].Outbox == 0 {
		t.Fatalf("ended = %+v", r.Ended)
	}
	h.want(h.one(evictBox(1).Open("a")), access.Deny, access.Evicted)
	newToken := evictBox(1).Open("a", func(o *admission.Open) { o.Key = key("other") })
	h.want(h.one(newToken), access.Deny, access.Evicted)
	h.want(h.one(evictBox(1).Open("elsewhere")), access.Allow, access.Granted)
	h.live(2)
}

// testBarOfAnother: the server's ids have started again, and another account's viewer got that of one who was
// evicted a moment ago.
func testBarOfAnother(t *testing.T, h *tester) {
	first := h.one(evictBox(1).Open("a", func(o *admission.Open) { o.Key = key("n1", "4") }))
	h.one(evictBox(2).Open("b"))
	r := h.one(evictBox(3).Open("c"))
	if len(r.Ended) != 1 || r.Ended[0].Session != first.Session {
		t.Fatalf("ended = %+v, want the first", r.Ended)
	}
	stranger := Viewer{User: "another", Device: "box9", Limit: 1, Mode: access.RefuseNew}
	h.want(h.one(stranger.Open("x", func(o *admission.Open) { o.Key = key("n1", "4") })), access.Allow, access.Granted)
	h.live(3)
	h.want(h.one(evictBox(1).Open("elsewhere", func(o *admission.Open) { o.Key = key("n1", "4") })), access.Deny, access.Evicted)
}

func testAgain(t *testing.T, h *tester) {
	first := box(1).Open("a")
	h.one(first)
	again := h.one(box(1).Open("a"))
	h.want(again, access.Allow, access.Granted)
	if !again.Repeated || again.Session != first.Open.Session || again.Decision != first.Open.ID {
		t.Fatalf("again = %+v, want the first session and row", again)
	}
	without := h.one(box(1).Open("a", func(o *admission.Open) { o.Token = access.Key{} }))
	if !without.Repeated {
		t.Fatalf("a question without a token opened anew: %+v", without)
	}
	h.live(1)
	h.rows(1)
}

func testStored(t *testing.T, h *tester) {
	it := box(1).Open("a")
	h.one(it)
	retry := *it.Open
	retry.Session, retry.Key = newID(), key("whatever")
	r := h.one(admission.Item{Open: &retry})
	h.want(r, access.Allow, access.Granted)
	if r.Session != it.Open.Session || !r.Live || r.Decision != it.Open.ID {
		t.Fatalf("retry = %+v", r)
	}
	h.one(box(2).Open("b"))
	denied := box(3).Open("c")
	h.want(h.one(denied), access.Deny, access.Limit)
	h.sign(it.Open.Session, 0, true)
	h.want(h.one(denied), access.Deny, access.Limit)
	h.live(1)
	h.rows(3)
}

func testReused(t *testing.T, h *tester) {
	mine := box(1).Open("a")
	h.one(mine)
	other := Viewer{User: "v", Device: "box9", Limit: 2, Mode: access.RefuseNew}.Open("a", func(o *admission.Open) { o.Key = mine.Open.Key })
	r := h.one(other)
	h.want(r, access.Allow, access.Granted)
	if r.Session != other.Open.Session || r.Repeated {
		t.Fatalf("the key was inherited: %+v", r)
	}
	if len(r.Ended) != 1 || r.Ended[0].Session != mine.Open.Session || r.Ended[0].Reason != access.CloseIDReused ||
		r.Ended[0].Bar != 0 || r.Ended[0].Outbox == 0 {
		t.Fatalf("ended = %+v, want the session that was replaced, not barred", r.Ended)
	}
	h.live(1)
	replaced := box(1).Open("b", func(o *admission.Open) { o.Replaces = other.Open.Session })
	h.want(h.one(replaced), access.Allow, access.Granted)
	h.live(1)
	if s := h.sign(other.Open.Session, 0, false); s.Live || s.Closed != access.CloseIDReused {
		t.Fatalf("replaced session: %+v", s)
	}
}

func testZap(t *testing.T, h *tester) {
	one := box(1)
	one.Limit = 1
	a := h.one(one.Open("a"))
	r := h.one(one.Open("b"))
	h.want(r, access.Allow, access.Granted)
	if len(r.Ended) != 1 || r.Ended[0].Session != a.Session || r.Ended[0].Reason != access.CloseZapped || r.Ended[0].Bar != 0 {
		t.Fatalf("ended = %+v", r.Ended)
	}
	for _, stream := range []string{"c", "a", "b", "a"} {
		h.want(h.one(one.Open(stream)), access.Allow, access.Granted)
		h.live(1)
	}
	// Another device is another viewer.
	two := box(2)
	two.Limit = 1
	h.want(h.one(two.Open("z")), access.Deny, access.Limit)
	// The same stream twice on one device is two seats.
	h.want(h.one(one.Open("a", func(o *admission.Open) { o.Key = key("second player") })), access.Deny, access.Limit)
}

func testStillPlaying(t *testing.T, h *tester) {
	b := box(1)
	h.one(b.Open("a"))
	h.one(b.Open("b"))
	h.live(1)
	still := func(o *admission.Open) { o.StillPlaying = true }
	h.want(h.one(b.Open("a", still)), access.Allow, access.Granted)
	h.live(2)
	h.want(h.one(b.Open("c")), access.Deny, access.Limit)
	h.live(2)
}

func testClose(t *testing.T, h *tester) {
	one := box(1)
	one.Limit = 1
	a := h.one(one.Open("a"))
	if s := h.sign(a.Session, 0, false); !s.Live {
		t.Fatalf("renewed session is not live: %+v", s)
	}
	if s := h.sign(a.Session, 0, true); s.Live || s.Closed != access.CloseIdle {
		t.Fatalf("closed session: %+v", s)
	}
	h.live(0)
	if s := h.sign(a.Session, 0, false); s.Live {
		t.Fatalf("a renewal brought a closed session back: %+v", s)
	}
	two := box(2)
	two.Limit = 1
	h.want(h.one(two.Open("a")), access.Allow, access.Granted)
	if s := h.sign(newID(), 0, false); s.Live || s.Closed != "" {
		t.Fatalf("unknown session: %+v", s)
	}
}

func testLateClose(t *testing.T, h *tester) {
	a := h.one(box(1).Open("a"))
	if s := h.sign(a.Session, 10*time.Second, true); !s.Live {
		t.Fatalf("a close older than the last sign of life closed: %+v", s)
	}
	h.live(1)
}

func testExpire(t *testing.T, h *tester) {
	one, two := box(1), box(2)
	one.Limit, two.Limit = 1, 1
	a := h.one(one.Open("a"))
	h.Expire(a.Session)
	h.want(h.one(two.Open("b")), access.Allow, access.Granted)
	h.live(1)
	if s := h.sign(a.Session, 0, false); s.Live || s.Closed != access.CloseExpired {
		t.Fatalf("expired session: %+v", s)
	}
}

func testKill(t *testing.T, h *tester) {
	a := h.one(box(1).Open("a"))
	h.Kill(a.Session, time.Hour)
	h.live(0)
	h.want(h.one(box(1).Open("a")), access.Deny, access.Killed)
	h.want(h.one(box(1).Open("a", func(o *admission.Open) { o.Key = key("new token") })), access.Deny, access.Killed)
	h.want(h.one(box(1).Open("b")), access.Allow, access.Granted)
	if s := h.sign(a.Session, 0, false); s.Live || s.Closed != access.CloseKilled {
		t.Fatalf("killed session: %+v", s)
	}
}

func testAudit(t *testing.T, h *tester) {
	a := h.one(box(1).Open("a"))
	no := admission.Item{Audit: &admission.Audit{Record: Record("u", "a"), Outcome: access.Deny, Reason: access.Expired, Close: a.Session}}
	r := h.one(no)
	h.want(r, access.Deny, access.Expired)
	if r.Decision != no.Audit.ID {
		t.Fatalf("decision = %s, want %s", r.Decision, no.Audit.ID)
	}
	h.live(0)
	h.one(no)
	h.rows(2)
}

func testKeep(t *testing.T, h *tester) {
	first := box(1).Open("a")
	h.one(first)
	keep := box(1).Open("a", func(o *admission.Open) {
		o.Keep, o.User, o.Subject, o.Limit = true, "", key("somebody"), 0
	})
	r := h.one(keep)
	h.want(r, access.Allow, access.Granted)
	if !r.Repeated || r.Session != first.Open.Session {
		t.Fatalf("kept session: %+v", r)
	}
	h.live(1)
	h.want(h.one(box(2).Open("b", func(o *admission.Open) { o.Limit = 1 })), access.Deny, access.Limit)
	h.Kill(first.Open.Session, time.Hour)
	after := box(1).Open("a", func(o *admission.Open) { o.Keep, o.User, o.Subject = true, "", key("somebody") })
	h.want(h.one(after), access.Deny, access.Killed)
}

func testLowered(t *testing.T, h *tester) {
	h.one(box(1).Open("a"))
	h.one(box(2).Open("b"))
	lower := func(o *admission.Open) { o.Limit = 1 }
	h.want(h.one(box(1).Open("a", lower)), access.Allow, access.Granted)
	h.want(h.one(box(2).Open("b", lower)), access.Deny, access.Limit)
	h.live(1)
	h.want(h.one(box(1).Open("a", func(o *admission.Open) { o.Limit = 0 })), access.Deny, access.Limit)
	h.live(0)
}

func testBatch(t *testing.T, h *tester) {
	r := h.all(box(1).Open("a"), box(2).Open("b"), box(3).Open("c"), box(1).Open("a"))
	h.want(r[0], access.Allow, access.Granted)
	h.want(r[1], access.Allow, access.Granted)
	h.want(r[2], access.Deny, access.Limit)
	if h.want(r[3], access.Allow, access.Granted); !r[3].Repeated || r[3].Session != r[0].Session {
		t.Fatalf("asked twice in one batch: %+v", r[3])
	}
	h.live(2)
	h.rows(3)
	// An open whose seat a later item of the call took was never let in.
	e := h.all(evictBox(4).Open("d"), evictBox(5).Open("e"), evictBox(6).Open("f"))
	h.want(e[0], access.Deny, access.Evicted)
	h.want(e[1], access.Allow, access.Granted)
	h.want(e[2], access.Allow, access.Granted)
	h.live(2)
	// A close and an open of the same call: the seat is free for it.
	c := h.all(box(7).Open("g"), admission.Item{Sign: &admission.Sign{Session: e[1].Session, Close: true, Reason: access.CloseStopped}})
	h.want(c[0], access.Allow, access.Granted)
	if c[1].Live || c[1].Closed != access.CloseStopped {
		t.Fatalf("close in a batch: %+v", c[1])
	}
	h.live(2)
}

func testBadItem(t *testing.T, h *tester) {
	agent := func(ua string) func(*admission.Open) { return func(o *admission.Open) { o.UserAgent = ua } }
	far := box(5).Open("far")
	far.Open.ID = uuid.UUID{0xe6, 0x77, 0xd2, 0x1f, 0xdb, 0xff, 0x70, 1, 0x80, 1} // a UUIDv7 of the year 9999
	bad := []admission.Item{
		Viewer{User: "b1", Device: "x", Limit: 1, Mode: access.RefuseNew}.Open("a", agent("\xff\xfe")),
		Viewer{User: "b2", Device: "x", Limit: 1, Mode: access.RefuseNew}.Open("a", agent("nul\x00")),
		Viewer{User: "b3", Device: "x", Limit: 1, Mode: access.RefuseNew}.Open("a", agent(string(make([]byte, 1<<20)))),
		far,
		{},
	}
	for i, b := range bad {
		good1, good2 := Viewer{User: fmt.Sprint("g", i), Device: "x", Limit: 1, Mode: access.RefuseNew}, Viewer{User: fmt.Sprint("h", i), Device: "x", Limit: 1, Mode: access.RefuseNew}
		r := h.all(good1.Open("a"), b, good2.Open("a"))
		h.want(r[0], access.Allow, access.Granted)
		h.want(r[2], access.Allow, access.Granted)
		if !errors.Is(r[1].Err, admission.ErrBadItem) {
			t.Fatalf("bad item %d = %+v, want ErrBadItem", i, r[1])
		}
	}
	h.live(2 * len(bad))
	h.rows(2 * len(bad))
}
