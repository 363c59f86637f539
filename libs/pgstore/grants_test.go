package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
)

// granting gives n workers' grants on one database.
func granting(t testing.TB, n int) (*Store, []*Grants) {
	t.Helper()
	s := setup(t)
	all := make([]*Grants, n)
	for i := range all {
		all[i] = running(t, s.Grants())
	}
	return s, all
}

func running(t testing.TB, g *Grants) *Grants {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = g.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return g
}

func forViewer(n byte, stream, ip string) decide.For {
	return decide.For{Who: access.Key{n}, Stream: stream, IP: netip.MustParseAddr(ip)}
}

func grantOf(check, user string, f decide.For) decide.Grant {
	now := time.Now()
	return decide.Grant{
		Check: check, For: f, Realm: "tv", User: user, SessionName: "Mr " + user, Sessions: 3, At: now, Until: now.Add(time.Hour),
	}
}

func found(t testing.TB, g *Grants, f decide.For, running bool) []decide.Grant {
	t.Helper()
	all, err := g.Find(t.Context(), f, running)
	if err != nil {
		t.Fatalf("Find: %v", err)
	}
	return all
}

func keep(t testing.TB, g *Grants, grant decide.Grant) {
	t.Helper()
	if err := g.Keep(t.Context(), grant); err != nil {
		t.Fatalf("Keep: %v", err)
	}
}

// What one worker keeps, another finds at once, also one that is started later.
func TestGrantsAreEveryWorkers(t *testing.T) {
	t.Parallel()
	s, w := granting(t, 2)
	f := forViewer(1, "news", "203.0.113.7")
	if got := found(t, w[1], f, false); len(got) != 0 {
		t.Fatalf("Find = %+v before anything was kept", got)
	}
	want := grantOf("portal", "17", f)
	want.Recheck, want.Whole = want.At.Add(time.Minute), true
	keep(t, w[0], want)
	for name, g := range map[string]*Grants{"the same": w[0], "another": w[1], "a new": running(t, s.Grants())} {
		got := found(t, g, f, false)
		if len(got) != 1 {
			t.Fatalf("%s worker finds %+v, want one grant", name, got)
		}
		one := got[0]
		for what, d := range map[string]time.Duration{"At": one.At.Sub(want.At), "Until": one.Until.Sub(want.Until), "Recheck": one.Recheck.Sub(want.Recheck)} {
			if d.Abs() > time.Second {
				t.Errorf("%s worker: %s is %v off", name, what, d)
			}
		}
		one.At, one.Until, one.Recheck = want.At, want.Until, want.Recheck
		if one != want {
			t.Errorf("%s worker finds %+v, want %+v", name, one, want)
		}
	}
	for what, other := range map[string]decide.For{
		"stream": forViewer(1, "sport", "203.0.113.7"), "address": forViewer(1, "news", "203.0.113.8"), "viewer": forViewer(2, "news", "203.0.113.7"),
	} {
		if got := found(t, w[0], other, false); len(got) != 0 {
			t.Errorf("for another %s Find = %+v, want none", what, got)
		}
	}
	none := decide.For{Who: access.Key{1}, Stream: "news"}
	keep(t, w[0], grantOf("portal", "17", none))
	if got := found(t, w[1], none, false); len(got) != 1 || got[0].For != none {
		t.Errorf("without an address Find = %+v, want the grant", got)
	}
}

func TestAGrantMovesWithItsSession(t *testing.T) {
	t.Parallel()
	_, w := granting(t, 2)
	home, away := forViewer(1, "news", "203.0.113.7"), forViewer(1, "news", "2001:db8::7")
	keep(t, w[0], grantOf("portal", "17", home))
	got := found(t, w[1], away, true)
	if len(got) != 1 || got[0].IP != home.IP {
		t.Fatalf("Find of the running session = %+v, want the grant of its earlier address", got)
	}
	moved := got[0]
	moved.From, moved.IP = moved.IP, away.IP
	keep(t, w[1], moved)
	if got := found(t, w[0], away, false); len(got) != 1 || got[0].User != "17" {
		t.Errorf("at the new address Find = %+v, want the grant", got)
	}
	if got := found(t, w[1], home, false); len(got) != 0 {
		t.Errorf("at the old address Find = %+v, want none", got)
	}
	if got := found(t, w[1], forViewer(1, "sport", "2001:db8::7"), true); len(got) != 0 {
		t.Errorf("on another stream Find = %+v, want none", got)
	}
}

func TestARevokedGrantIsGoneEverywhereWithinASecond(t *testing.T) {
	t.Parallel()
	s, w := granting(t, 3)
	his, hers := forViewer(1, "news", "203.0.113.7"), forViewer(2, "news", "203.0.113.7")
	keep(t, w[0], grantOf("portal", "17", his))
	keep(t, w[0], grantOf("billing", "17", his))
	keep(t, w[0], grantOf("portal", "18", hers))
	for _, g := range w {
		if got := found(t, g, his, false); len(got) != 2 {
			t.Fatalf("Find = %+v, want two grants", got)
		}
	}
	if n, err := s.RevokeGrants(t.Context(), "main", "17"); n != 0 || err != nil {
		t.Errorf("RevokeGrants of another realm = %d, %v, want none", n, err)
	}
	if n, err := s.RevokeGrants(t.Context(), "tv", "17"); n != 2 || err != nil {
		t.Fatalf("RevokeGrants = %d, %v, want 2", n, err)
	}
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i, g := range w {
		for len(found(t, g, his, false)) > 0 {
			if time.Since(began) > time.Second {
				t.Fatalf("worker %d believes the grant after %v", i, time.Since(began))
			}
			<-tick.C
		}
		if got := g.Recent(his); len(got) != 0 {
			t.Errorf("worker %d remembers %+v", i, got)
		}
		if got := found(t, g, hers, false); len(got) != 1 {
			t.Errorf("worker %d lost another's grant", i)
		}
	}
}

func TestGrantsEndAndAreRemoved(t *testing.T) {
	t.Parallel()
	s, w := granting(t, 1)
	short, whole := forViewer(1, "news", "203.0.113.7"), forViewer(2, "news", "203.0.113.7")
	past := grantOf("portal", "17", short)
	past.Until = time.Now().Add(-2 * time.Minute)
	keep(t, w[0], past)
	session := grantOf("smarty", "18", whole)
	session.Until, session.Whole = past.Until, true
	keep(t, w[0], session)
	keep(t, w[0], grantOf("portal", "19", forViewer(3, "news", "203.0.113.7")))
	fresh := running(t, s.Grants())
	if got := found(t, fresh, short, true); len(got) != 0 {
		t.Errorf("Find = %+v after the end, want none", got)
	}
	if got := found(t, fresh, whole, false); len(got) != 0 {
		t.Errorf("Find = %+v for a new session, want none", got)
	}
	if got := found(t, fresh, whole, true); len(got) != 1 || !got[0].Whole {
		t.Errorf("Find = %+v for the running session, want the grant", got)
	}
	if _, err := s.Maintain(t.Context(), policy.Retention{}); err != nil {
		t.Fatalf("Maintain: %v", err)
	}
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM usher.middleware_grant").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d grants are left, %v; want 2", n, err)
	}
}

// Many at once share statements, the same key twice and one that Postgres refuses among them.
func TestManyGrantsAtOnce(t *testing.T) {
	t.Parallel()
	_, w := granting(t, 2)
	const n = 2000
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			f := forViewer(byte(i%200), fmt.Sprint("stream", i%7), "203.0.113.7")
			grant := grantOf("portal", "17", f)
			bad := i == n/2
			if bad {
				grant.User = "a\x00b"
			}
			if err := w[i%2].Keep(t.Context(), grant); (err != nil) != bad {
				t.Errorf("Keep of %d = %v", i, err)
			}
			if got, err := w[1-i%2].Find(t.Context(), f, false); err != nil || !bad && len(got) == 0 {
				t.Errorf("Find of %d = %+v, %v", i, got, err)
			}
		})
	}
	all.Wait()
}

// A grant that was read before Postgres went away is still believed; nothing can be kept.
func TestGrantsWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	s, _ := granting(t, 0)
	away, err := Open(t.Context(), Config{DSN: s.pool.Config().ConnString(), MaxConns: 4}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g := running(t, away.Grants())
	f := forViewer(1, "news", "203.0.113.7")
	keep(t, g, grantOf("portal", "17", f))
	away.Close()
	<-time.After(grantFresh)
	if got := found(t, g, f, false); len(got) != 1 {
		t.Errorf("Find = %+v, want what is remembered", got)
	}
	other := forViewer(2, "news", "203.0.113.7")
	if _, err := g.Find(t.Context(), other, false); !errors.Is(err, admission.ErrUnavailable) {
		t.Errorf("Find of a stranger = %v, want unavailable", err)
	}
	if err := g.Keep(t.Context(), grantOf("portal", "17", other)); !errors.Is(err, admission.ErrUnavailable) {
		t.Errorf("Keep = %v, want unavailable", err)
	}
}
