package admissiontest

import (
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

func inShadow(o *admission.Open) { o.Shadow = true }

func (t *tester) would(r admission.Result, want string) {
	t.Helper()
	if r.Would != want {
		t.Fatalf("the row says that enforcement would %q, want %q", r.Would, want)
	}
}

func testShadow(_ *testing.T, h *tester) {
	for i, want := range []string{"allow", "allow", "deny limit"} {
		r := h.one(box(i).Open("a", inShadow))
		h.want(r, access.Allow, access.Granted)
		h.would(r, want)
	}
	r := h.one(evictBox(7).Open("a", inShadow))
	h.want(r, access.Allow, access.Granted)
	h.would(r, "allow evict_oldest")
	if len(r.Ended) != 0 {
		h.Fatalf("in shadow sessions were ended: %+v", r.Ended)
	}
	h.live(4)
	r = h.one(evictBox(8).Open("a", inShadow, func(o *admission.Open) { o.Would, o.WouldReason = access.Deny, access.BadToken }))
	h.want(r, access.Allow, access.Granted)
	h.would(r, "deny bad_token")
	r = h.one(admission.Item{Audit: &admission.Audit{
		Record: func() admission.Record {
			rec := Record("u", "a")
			rec.Would, rec.WouldReason, rec.Country = access.Allow, access.Granted, "DE"
			return rec
		}(), Outcome: access.Deny, Reason: access.Refused,
	}})
	h.want(r, access.Deny, access.Refused)
	h.would(r, "allow granted")

	// Asked again it goes on, however full; a kill by hand holds in shadow too.
	last := box(9).Open("a", inShadow)
	first := h.one(last)
	again := box(9).Open("a", inShadow)
	if r := h.one(again); r.Outcome != access.Allow || r.Session != first.Session || !r.Repeated {
		h.Fatalf("asked again in shadow: %+v", r)
	}
	h.Kill(first.Session, time.Hour)
	h.want(h.one(box(9).Open("a", inShadow)), access.Deny, access.Killed)
}

func testShadowBeside(_ *testing.T, h *tester) {
	for i := range 3 {
		h.want(h.one(box(i).Open("a", inShadow)), access.Allow, access.Granted)
	}
	// A family that has three seats in a trial still has its two where it is over.
	one, two := box(3).Open("a"), box(4).Open("a")
	h.want(h.one(one), access.Allow, access.Granted)
	h.want(h.one(two), access.Allow, access.Granted)
	h.want(h.one(box(5).Open("a")), access.Deny, access.Limit)
	r := h.one(evictBox(6).Open("a"))
	h.want(r, access.Allow, access.Granted)
	if len(r.Ended) != 1 || r.Ended[0].Session != one.Open.Session {
		h.Fatalf("ended = %+v, want the oldest that is not in shadow", r.Ended)
	}
	h.live(5)
	// What was evicted is not kept out of the trial.
	r = h.one(box(3).Open("a", inShadow))
	h.want(r, access.Allow, access.Granted)
	h.would(r, "deny evicted")
	// The trial ends: its sessions are judged when they are asked about again, and need a seat.
	h.want(h.one(box(0).Open("a")), access.Deny, access.Limit)
	h.want(h.one(evictBox(1).Open("a")), access.Deny, access.Evicted)
}

func testShadowCounts(_ *testing.T, h *tester) {
	deny := func(o *admission.Open) { o.Would, o.WouldReason = access.Deny, access.BadToken }
	h.one(box(1).Open("a", inShadow, deny))
	h.one(box(2).Open("a", inShadow, deny))
	first := h.one(box(3).Open("a", inShadow))
	h.would(first, "allow")
	h.would(h.one(box(4).Open("a", inShadow)), "allow")
	h.would(h.one(box(5).Open("a", inShadow)), "deny limit")
	h.sign(first.Session, 0, true)
	h.would(h.one(box(6).Open("a", inShadow)), "allow")
	h.would(h.one(evictBox(7).Open("a", inShadow)), "allow evict_oldest")
	h.would(h.one(evictBox(8).Open("a", inShadow)), "allow evict_oldest")
	h.live(7)

	// Zapping is a thing of each side: an open on one ends nothing on the other.
	if r := h.one(box(9).Open("a")); len(r.Ended) != 0 || r.Outcome != access.Allow {
		h.Fatalf("an enforced open = %+v", r)
	}
	for _, other := range []admission.Item{box(9).Open("b", inShadow), box(6).Open("b")} {
		if r := h.one(other); len(r.Ended) != 0 {
			h.Fatalf("%+v was ended from the other side", r.Ended)
		}
	}
}
