package pgstore

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// TestAgainstModel runs random schedules of opens, renewals, closes, expiries, evictions, zaps and kills, with lists
// of limits and soft ones, alone and in batches, on the ledger and on the model: every answer and every state must be equal.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		d := &duel{rt: rt, real: h, model: admissiontest.NewModel(), run: run}
		d.base = d.real.Live()
		d.cross = rapid.Bool().Draw(rt, "cross")
		rt.Repeat(map[string]func(*rapid.T){
			"one":    func(rt *rapid.T) { d.apply(d.item(rt, d.user(rt))) },
			"batch":  func(rt *rapid.T) { d.batch(rt) },
			"expire": func(rt *rapid.T) { d.expire(rt) },
			"kill":   func(rt *rapid.T) { d.kill(rt) },
			"retry":  func(rt *rapid.T) { d.retry(rt) },
			"pass":   func(rt *rapid.T) { d.pass(rt) },
			"":       func(*rapid.T) { d.sameState() },
		})
	})
}

type duel struct {
	rt       *rapid.T
	real     harness
	model    *admissiontest.Model
	run      int
	cross    bool        // items may touch sessions of another account
	base     []uuid.UUID // seats of earlier runs in the same database
	opened   []admission.Item
	sessions []uuid.UUID
}

func (d *duel) user(rt *rapid.T) string {
	return fmt.Sprintf("r%du%d", d.run, rapid.IntRange(0, 1).Draw(rt, "user"))
}

// item draws something to do for a user.
func (d *duel) item(rt *rapid.T, user string) admission.Item {
	if len(d.sessions) > 0 && rapid.IntRange(0, 3).Draw(rt, "kind") == 0 {
		// Ages are clear of the half second that a close forgives.
		age := rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(rt, "age")
		return admission.Item{Sign: &admission.Sign{
			Session: rapid.SampledFrom(d.sessions).Draw(rt, "session"), Age: age,
			Close: rapid.Bool().Draw(rt, "close"), Reason: access.CloseStopped,
		}}
	}
	v := admissiontest.Viewer{
		User: user, Device: fmt.Sprint("d", rapid.IntRange(0, 2).Draw(rt, "device")),
		Limit: rapid.IntRange(-1, 3).Draw(rt, "limit"), Mode: rapid.SampledFrom([]access.Mode{access.RefuseNew, access.EvictOldest}).Draw(rt, "mode"),
	}
	it := v.Open(fmt.Sprint("s", rapid.IntRange(0, 2).Draw(rt, "stream")), func(o *admission.Open) {
		o.StillPlaying = rapid.IntRange(0, 7).Draw(rt, "still") == 0
		if o.Shadow = rapid.IntRange(0, 4).Draw(rt, "shadow") == 0; o.Shadow && rapid.Bool().Draw(rt, "would") {
			o.Would, o.WouldReason = rapid.SampledFrom([]access.Outcome{access.Deny, access.Redirect}).Draw(rt, "as"), access.BadToken
		}
		if rapid.IntRange(0, 5).Draw(rt, "bars") > 0 {
			o.Lease = 0 // no bars: most schedules should get somewhere
		}
		if len(d.sessions) > 0 && rapid.IntRange(0, 9).Draw(rt, "replaces") == 0 {
			if other := d.opener(rapid.SampledFrom(d.sessions).Draw(rt, "replaced")); d.cross || other.User == o.User {
				o.Replaces = other.Session
			}
		}
		if len(d.opened) > 0 && rapid.IntRange(0, 5).Draw(rt, "same key") == 0 {
			if other := rapid.SampledFrom(d.opened).Draw(rt, "key of").Open; d.cross || other.User == o.User {
				o.Key = other.Key
			}
		}
	})
	d.limits(rt, it.Open)
	d.opened = append(d.opened, it)
	return it
}

var allModes = []access.Mode{access.RefuseNew, access.EvictOldest, access.Soft}

// limits draws more limits for an open, by what accounts share only where they may touch each other's sessions.
func (d *duel) limits(rt *rapid.T, o *admission.Open) {
	if rapid.IntRange(0, 5).Draw(rt, "soft") == 0 {
		o.Mode = access.Soft
	}
	of := o.User
	if d.cross {
		of = fmt.Sprint("run", d.run)
	}
	for i := range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(rt, "keys") {
		k := d.key(fmt.Sprint(of, "k", i, rapid.IntRange(0, 1).Draw(rt, "key")))
		o.Counted = append(o.Counted, k)
		if rapid.IntRange(0, 3).Draw(rt, "limited") > 0 {
			o.More = append(o.More, admission.Limit{Name: "of a key", Subject: k, Sessions: rapid.IntRange(0, 3).Draw(rt, "most"),
				Mode: rapid.SampledFrom(allModes).Draw(rt, "how")})
		}
	}
	if rapid.IntRange(0, 7).Draw(rt, "twice") == 0 {
		o.More = append(o.More, admission.Limit{Name: "of him", Subject: o.Subject, Sessions: rapid.IntRange(0, 3).Draw(rt, "most of him"),
			Mode: rapid.SampledFrom(allModes).Draw(rt, "how of him")})
	}
}

// key is a key of this name.
func (d *duel) key(name string) access.Key { return access.Key(uuid.NewSHA1(uuid.Nil, []byte(name))) }

// pass lets time pass and what is due of soft limits be done.
func (d *duel) pass(rt *rapid.T) {
	by := rapid.SampledFrom([]time.Duration{25 * time.Second, 70 * time.Second}).Draw(rt, "by")
	d.real.Pass(by)
	d.model.Pass(by)
	if rapid.Bool().Draw(rt, "sweep") {
		d.real.Sweep()
		d.model.Sweep()
	}
}

func (d *duel) opener(session uuid.UUID) *admission.Open {
	for _, it := range d.opened {
		if it.Open.Session == session {
			return it.Open
		}
	}
	return &admission.Open{}
}

func (d *duel) batch(rt *rapid.T) {
	n := rapid.IntRange(2, 8).Draw(rt, "size")
	items := make([]admission.Item, n)
	user := d.user(rt)
	for i := range items {
		// Accounts have no order among themselves within a batch: where they may touch each other's
		// sessions, only a batch of one account has one right answer.
		if !d.cross {
			user = d.user(rt)
		}
		items[i] = d.item(rt, user)
	}
	d.apply(items...)
}

func (d *duel) apply(items ...admission.Item) {
	real, err := d.real.Apply(context.Background(), items)
	if err != nil {
		d.rt.Fatalf("ledger: %v", err)
	}
	model, err := d.model.Apply(context.Background(), items)
	if err != nil {
		d.rt.Fatalf("model: %v", err)
	}
	for i := range items {
		if got, want := digest(real[i]), digest(model[i]); got != want {
			d.rt.Fatalf("item %d of %d %s:\n got %s\nwant %s", i, len(items), describe(items[i]), got, want)
		}
		if real[i].Outcome == access.Allow {
			d.sessions = append(d.sessions, real[i].Session)
		}
	}
}

func (d *duel) retry(rt *rapid.T) {
	if len(d.opened) > 0 {
		d.apply(rapid.SampledFrom(d.opened).Draw(rt, "again"))
	}
}

func (d *duel) expire(rt *rapid.T) {
	if len(d.sessions) > 0 {
		id := rapid.SampledFrom(d.sessions).Draw(rt, "session")
		d.real.Expire(id)
		d.model.Expire(id)
	}
}

func (d *duel) kill(rt *rapid.T) {
	if len(d.sessions) > 0 {
		id := rapid.SampledFrom(d.sessions).Draw(rt, "session")
		d.real.Kill(id, 0)
		d.model.Kill(id, 0)
	}
}

func (d *duel) sameState() {
	got := slices.DeleteFunc(d.real.Live(), func(id uuid.UUID) bool { return slices.Contains(d.base, id) })
	if want := d.model.Live(); !slices.Equal(got, want) {
		d.rt.Fatalf("live sessions:\n got %v\nwant %v", got, want)
	}
}

func digest(r admission.Result) string {
	var ended []string
	for _, e := range r.Ended {
		ended = append(ended, fmt.Sprint(e.Session, e.Reason, e.Bar, e.BarDevice))
	}
	slices.Sort(ended)
	var holders []string
	for _, h := range r.Holders {
		holders = append(holders, h.Session.String())
	}
	return fmt.Sprint(r.Err, r.Decision, r.Outcome, r.Reason, r.Session, r.Live, r.Closed, r.Repeated, r.Would, ended, holders, r.Full)
}

func describe(it admission.Item) string {
	if s := it.Sign; s != nil {
		return fmt.Sprintf("sign %s age %s close %t", s.Session, s.Age, s.Close)
	}
	o := it.Open
	return fmt.Sprintf("open %s key %s user %s stream %s device %s limit %d %s more %v counted %v still %t replaces %s lease %s shadow %t",
		o.Session, o.Key, o.User, o.Stream, o.Device, o.Limit, o.Mode, o.More, o.Counted, o.StillPlaying, o.Replaces, o.Lease, o.Shadow)
}
