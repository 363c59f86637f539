package decide_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
)

const grantPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes: {web: {caller: nginx, from: [127.0.0.1]}}
checks:
  a: {type: http, url: "http://a.example/", timeout: 400ms, max_concurrent: 2, breaker: {failures: 3, open: 5s}}
  b: {type: http, url: "http://b.example/", timeout: 400ms}
streams:
  - {match: "two/*", auth: {any: [a, b]}}
  - {match: "**", auth: a}
`

func yesFor(seconds string) decidetest.Backend {
	return decidetest.Backend{Status: http.StatusOK, Headers: map[string]string{"X-UserId": "u1", "X-AuthDuration": seconds}}
}

func viewerAt(stream, token string) *access.Request {
	return &access.Request{Node: "web", Stream: stream, Token: token, Query: "token=" + token}
}

// Whoever asks late, having looked for a grant before the first was answered, must not ask the
// middleware again: its token may be good only once.
func TestEqualQuestionsAskOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, grantPolicy)
	once := yesFor("60")
	once.After = 2 * time.Millisecond
	b.upstream.Set("a.example", once)
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			if i >= 200 {
				// Stragglers: at every moment around the answer.
				<-time.After(time.Duration(i-200) * 20 * time.Microsecond)
			}
			if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Outcome != access.Allow || v.User != "u1" {
				t.Errorf("Decide = %+v, want u1", v)
			}
		})
	}
	all.Wait()
	if n := b.upstream.Asked("a.example"); n != 1 {
		t.Errorf("the middleware was asked %d times, want once", n)
	}
}

// A yes is kept although nobody waits for it any more.
func TestALateYesIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, grantPolicy)
		late := yesFor("60")
		late.After = 300 * time.Millisecond
		b.upstream.Set("a.example", late)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if v := b.engine.Decide(ctx, viewerAt("news", "k1")); v.Reason != access.Unavailable {
			t.Errorf("Decide = %+v, want unavailable", v)
		}
		time.Sleep(200 * time.Millisecond) // synctest's clock: no waiting
		if v := b.engine.Decide(t.Context(), viewerAt("news", "k1")); v.Outcome != access.Allow {
			t.Errorf("Decide = %+v, want the grant", v)
		}
		if n := b.upstream.Asked("a.example"); n != 1 {
			t.Errorf("the middleware was asked %d times, want once", n)
		}
	})
}

func TestACapOfCallsAndABreakerPerUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, grantPolicy)
		later := yesFor("60")
		later.After = 10 * time.Millisecond // until then all want to ask the other
		b.upstream.Set("b.example", later)
		b.upstream.Set("a.example", decidetest.Backend{Status: http.StatusOK, After: time.Hour})
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				v := b.engine.Decide(t.Context(), viewerAt(fmt.Sprint("two/", i), fmt.Sprint("k", i)))
				if v.Outcome != access.Allow || v.User != "u1" {
					t.Errorf("Decide = %+v, want the word of the check that answers", v)
				}
			})
		}
		all.Wait()
		if n := b.upstream.AtOnce("a.example"); n != 2 {
			t.Errorf("%d calls were under way at once, want 2, which is the most", n)
		}
		for i := range 3 { // one at a time, so that each is a failure of its own
			_ = b.engine.Decide(t.Context(), viewerAt("news", fmt.Sprint("k", i)))
		}
		before, began := b.upstream.Asked("a.example"), time.Now()
		v := b.engine.Decide(t.Context(), viewerAt("news", "k9"))
		if v.Reason != access.Unavailable || time.Since(began) != 0 || b.upstream.Asked("a.example") != before {
			t.Errorf("Decide = %+v after %v, want unavailable at once, without asking", v, time.Since(began))
		}
		if last := v.Steps[len(v.Steps)-2]; !strings.Contains(last.Text, "left alone") {
			t.Errorf("the step says %q, want that it is left alone", last.Text)
		}
	})
}

func TestAskedTellsOfEachQuestionOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []string
	b := newBenchWith(t, grantPolicy, func(d *decide.Deps) {
		d.Asked = func(a decide.Asking) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, a.Check.Name+" "+a.Result)
		}
	})
	b.upstream.Set("a.example", yesFor("60"))
	for range 3 {
		_ = b.engine.Decide(t.Context(), viewerAt("news", "k1"))
	}
	b.upstream.Set("a.example", decidetest.Backend{Status: http.StatusForbidden})
	_ = b.engine.Decide(t.Context(), viewerAt("news", "k2"))
	b.upstream.Set("a.example", decidetest.Backend{})
	_ = b.engine.Decide(t.Context(), viewerAt("news", "k2"))
	if got, want := strings.Join(told, ", "), "a allow, a deny, a unavailable"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}
