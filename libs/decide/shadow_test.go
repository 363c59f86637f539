package decide_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/directive"
)

const shadowPolicy = `
version: 1
defaults: {on_unavailable: deny}
nodes:
  web: {caller: nginx, from: [127.0.0.1], enforce: off, answer: b}
  plain: {caller: nginx, from: [127.0.0.1]}
  fl: {caller: flussonic, from: [127.0.0.1], enforce: off}
checks:
  a: {type: http, url: "http://a.example/", timeout: 400ms}
  b: {type: http, url: "http://b.example/", timeout: 400ms}
streams:
  - {match: "lim/*", auth: allow, limit: {sessions: 2, enforce: off}}
  - {match: "**", auth: a}
`

// The new check hangs; the backend that answers today is well.
func TestShadowHangingNewCheckDoesNotCostTheOldBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, shadowPolicy)
		b.upstream.Set("a.example", decidetest.Backend{Status: 200, After: time.Hour})
		b.upstream.Set("b.example", decidetest.Backend{Status: http.StatusOK, After: 60 * time.Millisecond})
		ctx, cancel := context.WithTimeout(t.Context(), 380*time.Millisecond)
		defer cancel()
		v := b.engine.Decide(ctx, viewerAt("news", "k1"))
		if v.Outcome != access.Allow {
			t.Errorf("Decide = %s %s (%s); the old backend says yes in 60ms", v.Outcome, v.Reason, v.Text)
		}
	})
}

// A trial lets everybody watch, and nobody publish whom the check of today does not accept.
func TestShadowPublishersOfANodeInShadow(t *testing.T) {
	t.Parallel()
	b := newBench(t, shadowPolicy)
	b.upstream.Set("b.example", decidetest.Backend{Status: 200})
	for node, want := range map[string]access.Outcome{"fl": access.Deny, "web": access.Allow} {
		r := viewerAt("news", "k1")
		r.Node, r.Action = node, access.Publish
		if v := b.engine.Decide(t.Context(), r); v.Outcome != want || v.Would != "" && v.Would != access.Deny {
			t.Errorf("publisher on node %s with enforce: off = %s %s (%s), want %s", node, v.Outcome, v.Reason, v.Text, want)
		}
	}
}

func TestShadowRunningSessionKeepsItsUser(t *testing.T) {
	t.Parallel()
	b := newBench(t, shadowPolicy)
	b.upstream.Set("a.example", decidetest.Backend{Status: 403})
	b.upstream.Set("b.example", decidetest.Backend{Status: 200})
	r := viewerAt("news", "k1")
	r.Session = uuid.New()
	v := b.engine.Decide(t.Context(), r)
	if keep := v.Unavailable && v.User == ""; !keep {
		t.Errorf("a running session that enforcement would end: outcome %s would %s user %q unavailable %t", v.Outcome, v.Would, v.User, v.Unavailable)
	}
}

// A limit that an operator ordered by hand, on a rule whose own limit is only tried out.
func TestShadowLimitOrderedByHandHoldsInShadow(t *testing.T) {
	t.Parallel()
	set := directive.NewSet(override(directive.Limit, func(d *directive.Directive) {
		d.Limit, d.Stream = 1, "lim/news"
	}))
	b := newBenchWith(t, shadowPolicy, func(d *decide.Deps) { d.Directives = func() *directive.Set { return set } })
	r := viewerAt("lim/news", "k1")
	r.Node = "plain"
	if v := b.engine.Decide(t.Context(), r); v.Limit != 1 || v.Shadow {
		t.Errorf("limit %d, in shadow %t; want the ordered limit of 1, enforced", v.Limit, v.Shadow)
	}
}

// lookingUp are grants that are looked for as the test says.
type lookingUp struct {
	*decidetest.Grants
	find func(context.Context)
}

func (l lookingUp) Find(ctx context.Context, f decide.For, running bool) ([]decide.Grant, error) {
	l.find(ctx)
	return l.Grants.Find(ctx, f, running)
}

func TestShadowPanicBesideTheQuestionCostsTheCheckThatAnswersAlone(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, shadowPolicy, func(d *decide.Deps) {
		d.Grants = lookingUp{decidetest.NewGrants(), func(context.Context) { panic("boom") }}
	})
	r := viewerAt("lim/news", "k1")
	if v := b.engine.Decide(t.Context(), r); v.Outcome != access.Deny || v.Reason != access.Unavailable {
		t.Errorf("Decide = %s %s (%s); want deny unavailable", v.Outcome, v.Reason, v.Text)
	}
}

// The check that would answer in shadow is not needed for whom the policy holds.
func TestShadowNobodyAsksOnAfterTheVerdict(t *testing.T) {
	t.Parallel()
	var running atomic.Int32
	b := newBenchWith(t, strings.Replace(shadowPolicy, "enforce: off, answer: b", "enforce: 99%, answer: b", 1), func(d *decide.Deps) {
		d.Grants = lookingUp{decidetest.NewGrants(), func(ctx context.Context) {
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Done()
		}}
	})
	for range 20 {
		if v := b.engine.Decide(t.Context(), viewerAt("lim/news", "k1")); v.Would != "" {
			t.Fatal("the viewer is in the trial; want one for whom the policy holds")
		}
		if n := running.Load(); n > 0 {
			t.Fatal("the check that would answer is still asked after the verdict")
		}
	}
}
