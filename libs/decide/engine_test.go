package decide

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/match"
	"usher.internal/libs/middleware"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
)

// verifierFunc and askerFunc are checks that a test writes.
type verifierFunc func(context.Context, *token.Question) (token.Identity, error)

func (f verifierFunc) Verify(ctx context.Context, q *token.Question) (token.Identity, error) {
	return f(ctx, q)
}

type askerFunc func(context.Context, *access.Request) (middleware.Answer, error)

func (f askerFunc) Ask(ctx context.Context, r *access.Request) (middleware.Answer, error) {
	return f(ctx, r)
}

// engineOf decides by one rule for everything, with these checks.
func engineOf(t *testing.T, d Deps, mode policy.AuthMode, fail access.FailMode, checks ...any) *Engine {
	t.Helper()
	glob, err := match.ParseGlob("**")
	if err != nil {
		t.Fatal(err)
	}
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	d.Keyer = keyer
	r := &policy.Rule{Match: glob, Auth: mode, OnUnavailable: fail, Uncounted: access.FailAllow}
	s := &policy.Snapshot{
		Nodes: map[string]*policy.Node{"n": {Name: "n", Lease: time.Minute, Idle: time.Minute}},
		Rules: []*policy.Rule{r},
	}
	e, err := New(s, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	compiled := e.rules[r]
	for i, c := range checks {
		pc := &policy.Check{Name: string(rune('a' + i)), Realm: "main"}
		r.Checks = append(r.Checks, pc)
		own := &check{Check: pc, stop: func() {}}
		switch c := c.(type) {
		case verifierFunc:
			own.verifier = c
			compiled.verifiers = append(compiled.verifiers, own)
		case askerFunc:
			own.middleware = c
			compiled.upstreams = append(compiled.upstreams, own)
		}
	}
	return e
}

func asking(tok string) *access.Request {
	return &access.Request{Node: "n", Stream: "s", Token: tok, Query: "token=" + tok, IP: netip.MustParseAddr("10.0.0.5")}
}

func TestPanicCostsOneCheck(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	d := Deps{Log: slog.New(slog.NewTextHandler(&log, nil))}
	broken := verifierFunc(func(_ context.Context, q *token.Question) (token.Identity, error) { panic(q.Token) })
	brokenToo := askerFunc(func(_ context.Context, r *access.Request) (middleware.Answer, error) { panic(r.Query) })
	sound := askerFunc(func(context.Context, *access.Request) (middleware.Answer, error) {
		return middleware.Answer{Allowed: true, User: "u"}, nil
	})
	e := engineOf(t, d, policy.AuthAny, access.FailDeny, broken, brokenToo, sound)
	if v := e.Decide(t.Context(), asking("VIEWERSTOKEN")); v.Outcome != access.Allow || v.User != "u" {
		t.Errorf("Decide = %+v, want the sound check's word", v)
	}
	e = engineOf(t, d, policy.AuthAny, access.FailDeny, broken, brokenToo)
	if v := e.Decide(t.Context(), asking("VIEWERSTOKEN")); v.Reason != access.Unavailable || !v.Unavailable {
		t.Errorf("Decide = %+v, want unavailable", v)
	}
	if got := log.String(); strings.Contains(got, "VIEWERSTOKEN") || !strings.Contains(got, "check panicked") {
		t.Errorf("log = %s", got)
	}
}

func TestMiddlewaresRunBesideEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(d time.Duration, user string) askerFunc {
			return func(ctx context.Context, _ *access.Request) (middleware.Answer, error) {
				select {
				case <-time.After(d):
					return middleware.Answer{Allowed: user != "", User: user}, nil
				case <-ctx.Done():
					return middleware.Answer{}, middleware.ErrUnavailable
				}
			}
		}
		var mu sync.Mutex
		seen := map[string]string{}
		d := Deps{Observe: func(check, result string, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen[check] = result
		}}
		e := engineOf(t, d, policy.AuthAny, access.FailDeny, slow(time.Hour, "never"), slow(200*time.Millisecond, "quick"), slow(100*time.Millisecond, ""))
		began := time.Now()
		v := e.Decide(t.Context(), asking("t"))
		if took := time.Since(began); v.User != "quick" || took != 200*time.Millisecond {
			t.Errorf("Decide = %+v after %v, want quick after 200ms", v, took)
		}
		if seen["a"] != notNeeded || seen["b"] != yes || seen["c"] != no {
			t.Errorf("observed %v", seen)
		}

		e = engineOf(t, d, policy.AuthAll, access.FailDeny, slow(time.Hour, "never"), slow(100*time.Millisecond, ""))
		began = time.Now()
		v = e.Decide(t.Context(), asking("t"))
		if took := time.Since(began); v.Reason != access.Refused || took != 100*time.Millisecond {
			t.Errorf("Decide = %+v after %v, want refused after 100ms", v, took)
		}
	})
}

// slowKnown answers after a while, or when ctx ends.
type slowKnown struct{ nothing }

func (slowKnown) Allowed(ctx context.Context, _ string, _ access.Key) (Word, bool, error) {
	if ctx.Err() != nil {
		return Word{}, false, ctx.Err()
	}
	return Word{Allowed: true, User: "u", At: time.Now()}, true, nil
}

// A check that hangs until the end must leave time to look up who is known.
func TestHangingCheckLeavesTimeForGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := askerFunc(func(ctx context.Context, _ *access.Request) (middleware.Answer, error) {
			<-ctx.Done()
			return middleware.Answer{}, middleware.ErrUnavailable
		})
		e := engineOf(t, Deps{Known: slowKnown{}}, policy.AuthAny, access.FailGrace, hangs)
		e.snapshot.Rules[0].GraceKnown = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		v := e.Decide(ctx, asking("t"))
		if took := time.Since(began); v.Reason != access.Grace || v.User != "u" || took != 250*time.Millisecond {
			t.Errorf("Decide = %+v after %v, want grace after 250ms", v, took)
		}
	})
}

func TestRecheckEndsTheLeaseWithTheToken(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000100, 0)
	v := verifierFunc(func(context.Context, *token.Question) (token.Identity, error) {
		return token.Identity{Expires: now.Add(10 * time.Second), Sessions: 2, User: "u", Device: "d"}, nil
	})
	e := engineOf(t, Deps{Now: func() time.Time { return now }}, policy.AuthAll, access.FailDeny, v)
	got := e.Decide(t.Context(), asking("t"))
	if got.Lease != 10*time.Second || got.Limit != 2 || got.Device != "d" {
		t.Errorf("Decide = %+v, want a lease of 10s, limit 2, device d", got)
	}
}

func TestVerifierThatFailsIsUnavailable(t *testing.T) {
	t.Parallel()
	v := verifierFunc(func(context.Context, *token.Question) (token.Identity, error) {
		return token.Identity{}, context.DeadlineExceeded
	})
	e := engineOf(t, Deps{}, policy.AuthAll, access.FailDeny, v)
	if got := e.Decide(t.Context(), asking("t")); got.Reason != access.Unavailable {
		t.Errorf("Decide = %+v, want unavailable", got)
	}
}

func TestAllStopsAtTheFirstNo(t *testing.T) {
	t.Parallel()
	asked := 0
	counts := askerFunc(func(context.Context, *access.Request) (middleware.Answer, error) {
		asked++
		return middleware.Answer{Allowed: true}, nil
	})
	notMine := verifierFunc(func(context.Context, *token.Question) (token.Identity, error) {
		return token.Identity{}, token.ErrNotMine
	})
	e := engineOf(t, Deps{}, policy.AuthAll, access.FailAllow, notMine, counts)
	if v := e.Decide(t.Context(), asking("t")); v.Reason != access.BadToken || asked != 0 {
		t.Errorf("Decide = %+v after %d questions, want bad_token after none", v, asked)
	}
	if v := e.Decide(t.Context(), asking("")); v.Reason != access.NoToken || asked != 0 {
		t.Errorf("Decide = %+v after %d questions, want no_token after none", v, asked)
	}
}

// Of two checks with different keys the one that made the token says what is wrong with it.
func TestAProvenNoCountsMoreThanABadToken(t *testing.T) {
	t.Parallel()
	says := func(reason access.Reason) verifierFunc {
		return func(context.Context, *token.Question) (token.Identity, error) {
			return token.Identity{}, &token.Denial{Reason: reason, Text: string(reason)}
		}
	}
	for _, c := range []struct{ first, second, want access.Reason }{
		{access.BadToken, access.Expired, access.Expired},
		{access.Expired, access.BadToken, access.Expired},
		{access.BadToken, access.WrongIP, access.WrongIP},
		{access.NotYet, access.Expired, access.NotYet},
		{access.BadToken, access.BadToken, access.BadToken},
	} {
		e := engineOf(t, Deps{}, policy.AuthAny, access.FailDeny, says(c.first), says(c.second))
		if v := e.Decide(t.Context(), asking("t")); v.Reason != c.want || v.Outcome != access.Deny {
			t.Errorf("%s, then %s = %s %s, want %s", c.first, c.second, v.Outcome, v.Reason, c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	var types []string
	for _, k := range Kinds() {
		types = append(types, k.Type)
		// A link names a user only where its options say by which argument.
		if o := k.NewOptions(); o == nil || k.NamesUser(o) == (k.Type == "secure_link") {
			t.Errorf("kind %s has no options, or NamesUser is wrong", k.Type)
		}
	}
	want := []string{"securetoken", "jwt", "secure_link", "users", "http", "ministra", "iptvportal", "smarty", "flussonic"}
	if !slices.Equal(types, want) {
		t.Errorf("Kinds = %v, want %v", types, want)
	}
}

// brokenKnown panics when it is asked for a word.
type brokenKnown struct{}

func (brokenKnown) Allowed(context.Context, string, access.Key) (Word, bool, error) {
	panic("VIEWERSTOKEN")
}
func (brokenKnown) Remember(string, access.Key, Word) {}

// TestPanicBesideACheckCostsOneCheck: an override has the last word looked up before its check is asked,
// in a goroutine of its own.
func TestPanicBesideACheckCostsOneCheck(t *testing.T) {
	t.Parallel()
	orders := directive.NewSet(directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: directive.Override, Action: directive.Allow, Check: "a", User: "nobody", Realm: "main",
		At: time.Now(), Until: time.Now().Add(time.Hour),
	})
	d := Deps{Log: slog.New(slog.DiscardHandler), Known: brokenKnown{}, Directives: func() *directive.Set { return orders }}
	sound := askerFunc(func(context.Context, *access.Request) (middleware.Answer, error) {
		return middleware.Answer{Allowed: true, User: "u"}, nil
	})
	e := engineOf(t, d, policy.AuthAny, access.FailDeny, sound, sound)
	if v := e.Decide(t.Context(), asking("VIEWERSTOKEN")); v.Outcome != access.Allow && v.Reason != access.Unavailable {
		t.Errorf("Decide = %+v, want the other check's word, or that nobody could be asked", v)
	}
}
