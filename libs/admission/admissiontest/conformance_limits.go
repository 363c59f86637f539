package admissiontest

import (
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// under makes the seat count under a key of this name too, with a limit of its own.
func under(name string, sessions int, mode access.Mode) func(*admission.Open) {
	return func(o *admission.Open) {
		k := key("limit", name)
		o.Counted = append(o.Counted, k)
		o.More = append(o.More, admission.Limit{Name: "of " + name, Subject: k, Sessions: sessions, Mode: mode})
	}
}

// counting makes the seat count under a key of this name, without a limit.
func counting(name string) func(*admission.Open) {
	return func(o *admission.Open) { o.Counted = append(o.Counted, key("limit", name)) }
}

func unlimited(o *admission.Open) { o.Limit = -1 }

func (t *tester) ended(r admission.Result, why access.CloseReason, of ...admission.Result) {
	t.Helper()
	if len(r.Ended) != len(of) {
		t.Fatalf("ended = %+v, want %d", r.Ended, len(of))
	}
	for _, o := range of {
		found := false
		for _, e := range r.Ended {
			found = found || e.Session == o.Session && e.Reason == why
		}
		if !found {
			t.Fatalf("ended = %+v, want %s %s", r.Ended, o.Session, why)
		}
	}
}

func testList(t *testing.T, h *tester) {
	sport := func(n int) Viewer { v := box(n); v.Limit = 3; return v }
	first := h.one(sport(1).Open("a", under("sport", 1, access.RefuseNew)))
	h.want(first, access.Allow, access.Granted)
	r := h.one(sport(2).Open("b", under("sport", 1, access.RefuseNew)))
	h.want(r, access.Deny, access.Limit)
	if r.Full != 1 || r.Taken != 1 || len(r.Holders) != 1 || r.Holders[0].Session != first.Session {
		t.Fatalf("result = %+v, want the second limit, held by the first session", r)
	}
	// Other streams count for the user, not for the package.
	h.want(h.one(sport(2).Open("c")), access.Allow, access.Granted)
	h.want(h.one(sport(3).Open("d", counting("elsewhere"))), access.Allow, access.Granted)
	r = h.one(sport(4).Open("e", under("news", 5, access.RefuseNew)))
	h.want(r, access.Deny, access.Limit)
	if r.Full != 0 || r.Taken != 3 {
		t.Fatalf("result = %+v, want the first limit with 3 seats", r)
	}
	// Another user's seats count where he shares the subject.
	other := Viewer{User: "v", Device: "tv", Limit: 3, Mode: access.RefuseNew}
	h.want(h.one(other.Open("a", under("sport", 1, access.RefuseNew))), access.Deny, access.Limit)
	h.sign(first.Session, 0, true)
	h.want(h.one(other.Open("a", under("sport", 1, access.RefuseNew))), access.Allow, access.Granted)
	h.live(3)
}

func testListRefuses(_ *testing.T, h *tester) {
	a := h.one(evictBox(1).Open("a", under("address", 2, access.RefuseNew)))
	b := h.one(evictBox(2).Open("b", under("address", 2, access.RefuseNew)))
	r := h.one(evictBox(3).Open("c", under("address", 2, access.RefuseNew)))
	h.want(r, access.Deny, access.Limit)
	h.ended(r, "")
	h.live(2)
	r = h.one(evictBox(3).Open("c", under("home", 2, access.RefuseNew)))
	h.want(r, access.Allow, access.Granted)
	h.ended(r, access.CloseEvicted, a)
	if s := h.sign(b.Session, 0, false); !s.Live {
		h.Fatal("the younger session was ended too")
	}
}

func testListEvicts(_ *testing.T, h *tester) {
	v := func(n int) Viewer { w := evictBox(n); w.Limit = 3; return w }
	h.one(v(1).Open("a"))
	b := h.one(v(2).Open("b", under("sport", 2, access.EvictOldest)))
	h.one(v(3).Open("c", under("sport", 2, access.EvictOldest)))
	// The oldest of the package makes room for both; the oldest of the user stays.
	r := h.one(v(4).Open("d", under("sport", 2, access.EvictOldest)))
	h.want(r, access.Allow, access.Granted)
	h.ended(r, access.CloseEvicted, b)
	h.live(3)
}

func testListFills(_ *testing.T, h *tester) {
	old := box(1).Open("a")
	h.one(old)
	// A limit that was not there when it was opened does not see it.
	one := func(n int) admission.Item { return box(n).Open("a", under("device", 1, access.RefuseNew)) }
	h.want(h.one(one(2)), access.Allow, access.Granted)
	h.live(2)
	// Asked again it needs a seat.
	h.want(h.one(one(1)), access.Deny, access.Limit)
	h.live(1)
	h.want(h.one(box(3).Open("x")), access.Allow, access.Granted)
	h.want(h.one(box(3).Open("x", counting("device"))), access.Allow, access.Granted)
	two := func(n int) admission.Item { return box(n).Open("b", unlimited, under("device", 2, access.RefuseNew)) }
	h.want(h.one(two(4)), access.Deny, access.Limit)
	h.want(h.one(box(3).Open("x")), access.Allow, access.Granted)
	h.want(h.one(two(4)), access.Allow, access.Granted)
}

func testListMoves(_ *testing.T, h *tester) {
	at := func(n int, where string, mode access.Mode) admission.Item {
		return box(n).Open("a", unlimited, under(where, 1, mode))
	}
	first := h.one(at(1, "home", access.RefuseNew))
	h.want(h.one(at(2, "train", access.RefuseNew)), access.Allow, access.Granted)
	h.want(h.one(at(2, "home", access.RefuseNew)), access.Deny, access.Limit)
	h.live(1)
	h.one(at(3, "train", access.EvictOldest))
	r := h.one(at(3, "home", access.EvictOldest))
	h.want(r, access.Allow, access.Granted)
	h.ended(r, access.CloseEvicted, first)
	h.want(h.one(at(3, "home", access.EvictOldest)), access.Allow, access.Granted)
}

func testListShadow(_ *testing.T, h *tester) {
	for i, want := range []string{"allow", "deny limit", "deny limit"} {
		r := h.one(box(i).Open("a", inShadow, unlimited, under("sport", 1, access.RefuseNew)))
		h.want(r, access.Allow, access.Granted)
		h.would(r, want)
	}
	r := h.one(box(5).Open("a", inShadow, unlimited, under("sport", 1, access.EvictOldest)))
	h.want(r, access.Allow, access.Granted)
	h.would(r, "allow evict_oldest")
	h.live(4)
	h.want(h.one(box(6).Open("a", unlimited, under("sport", 1, access.RefuseNew))), access.Allow, access.Granted)
	h.want(h.one(box(7).Open("a", unlimited, under("sport", 1, access.RefuseNew))), access.Deny, access.Limit)
}

func testListZap(_ *testing.T, h *tester) {
	tv := func(stream string) admission.Item {
		return box(1).Open(stream, under("device", 1, access.RefuseNew), under("sport", 1, access.RefuseNew))
	}
	a := h.one(tv("a"))
	r := h.one(tv("b"))
	h.want(r, access.Allow, access.Granted)
	h.ended(r, access.CloseZapped, a)
	h.live(1)
}

func testListExpired(_ *testing.T, h *tester) {
	one := func(user string) admission.Item {
		v := Viewer{User: user, Device: "tv", Limit: 5, Mode: access.RefuseNew}
		return v.Open("a", under("address", 1, access.RefuseNew))
	}
	a := h.one(one("u"))
	h.want(h.one(one("v")), access.Deny, access.Limit)
	h.Expire(a.Session)
	h.want(h.one(one("v")), access.Allow, access.Granted)
	h.live(1)
	if s := h.sign(a.Session, 0, false); s.Live || s.Closed != access.CloseExpired {
		h.Fatalf("expired session: %+v", s)
	}
}

func softBox(n int) Viewer {
	v := box(n)
	v.Mode = access.Soft
	return v
}

// alive gives signs of life of sessions.
func (t *tester) alive(of ...admission.Result) {
	t.Helper()
	for _, r := range of {
		if s := t.sign(r.Session, 0, false); !s.Live {
			t.Fatalf("session %s was ended: %s", r.Session, s.Closed)
		}
	}
}

func (t *tester) closed(r admission.Result, why access.CloseReason) {
	t.Helper()
	if s := t.sign(r.Session, 0, false); s.Live || s.Closed != why {
		t.Fatalf("session: live %t, closed %q, want %q", s.Live, s.Closed, why)
	}
}

func testSoft(_ *testing.T, h *tester) {
	a, b, c := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("b")), h.one(softBox(3).Open("c"))
	h.want(c, access.Allow, access.Granted)
	h.live(3)
	for range 3 {
		h.Pass(29 * time.Second)
		h.alive(a, b, c)
		h.Sweep()
		h.live(3)
	}
	h.Pass(4 * time.Second)
	h.Sweep()
	h.closed(a, access.CloseEvicted)
	h.want(h.one(softBox(1).Open("a")), access.Deny, access.Evicted)
	h.Pass(time.Hour)
	h.Sweep()
	h.live(2)
}

func testSoftIdle(_ *testing.T, h *tester) {
	a, b, c := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("b")), h.one(softBox(3).Open("c"))
	h.Pass(29 * time.Second)
	h.alive(a, c)
	h.Pass(13 * time.Second)
	h.Sweep()
	h.closed(b, access.CloseIdle)
	h.want(h.one(softBox(2).Open("b")), access.Allow, access.Granted) // not barred, and beyond the limit again
	h.live(3)
	h.Pass(29 * time.Second)
	h.alive(a, c)
	h.Sweep()
	h.live(3)
}

func testSoftZap(_ *testing.T, h *tester) {
	a, b := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("a"))
	var third admission.Result
	for _, stream := range []string{"b", "c", "d", "e"} {
		third = h.one(softBox(3).Open(stream))
		h.want(third, access.Allow, access.Granted)
		h.live(3)
		h.Pass(28 * time.Second)
		h.alive(a, b, third)
	}
	h.Sweep()
	h.closed(a, access.CloseEvicted)
	h.alive(third)
}

func testSoftBound(_ *testing.T, h *tester) {
	for n := range 4 {
		h.want(h.one(softBox(n).Open("a")), access.Allow, access.Granted)
	}
	r := h.one(softBox(5).Open("a"))
	h.want(r, access.Deny, access.Limit)
	if r.Taken != 4 {
		h.Fatalf("refused with %d seats, want 4", r.Taken)
	}
	h.Pass(91 * time.Second)
	h.Sweep()
	h.live(2)
}

func testSoftFalls(_ *testing.T, h *tester) {
	a, b, c := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("b")), h.one(softBox(3).Open("c"))
	h.sign(b.Session, 0, true)
	h.Pass(50 * time.Second)
	h.alive(a, c)
	d := h.one(softBox(4).Open("d")) // a new excess, with its own time
	h.Pass(50 * time.Second)
	h.alive(a, c, d)
	h.Sweep()
	h.live(3)
	h.Pass(41 * time.Second)
	h.Sweep()
	h.closed(a, access.CloseEvicted)
	h.live(2)
}

func testSoftLowered(_ *testing.T, h *tester) {
	a, b := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("b"))
	lower := func(o *admission.Open) { o.Limit = 1 }
	h.want(h.one(softBox(1).Open("a", lower)), access.Allow, access.Granted)
	h.Pass(91 * time.Second)
	h.Sweep()
	h.closed(a, access.CloseEvicted)
	h.alive(b)
}

func testSoftByOpen(_ *testing.T, h *tester) {
	a, b := h.one(softBox(1).Open("a")), h.one(softBox(2).Open("b"))
	h.one(softBox(3).Open("c"))
	h.Pass(91 * time.Second)
	h.want(h.one(softBox(4).Open("d")), access.Allow, access.Granted)
	h.closed(a, access.CloseEvicted)
	h.live(3)
	h.Pass(91 * time.Second)
	h.Sweep()
	h.closed(b, access.CloseEvicted)
	h.live(2)
}
