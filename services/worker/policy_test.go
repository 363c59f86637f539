package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

// build is a compiler whose outcomes are set by revision.
type build struct {
	mu      sync.Mutex
	engines map[int64]*fakeEngine
	errs    map[int64]error
	tries   int
}

func (b *build) compile(r *usherv1.PolicyRevision) (*policy.Snapshot, engine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	if r.GetSource() == "panic" {
		panic("boom")
	}
	if err := b.errs[r.GetRevision()]; err != nil {
		return nil, nil, err
	}
	e := newFakeEngine(func(context.Context, *access.Request) decide.Verdict { return decide.Verdict{} })
	b.engines[r.GetRevision()] = e
	return &policy.Snapshot{Revision: r.GetRevision(), Source: r.GetSource()}, e, nil
}

func newBuild() *build { return &build{engines: map[int64]*fakeEngine{}, errs: map[int64]error{}} }

func (b *build) policies(source policySource) *policies {
	return newPolicies(source, b.compile, slog.New(slog.DiscardHandler), newMetrics("w1", nil))
}

func revision(n int64, text string) *usherv1.PolicyRevision {
	return &usherv1.PolicyRevision{Revision: n, Source: text}
}

func TestPoliciesReplaceTheEngineAfterItsQuestions(t *testing.T) {
	t.Parallel()
	b := newBuild()
	p := b.policies(nil)
	p.apply(t.Context(), revision(1, "a"))
	held := p.judge()
	p.apply(t.Context(), revision(2, "b"))
	select {
	case <-b.engines[1].closed:
		t.Fatal("the old engine was closed while a question used it")
	default:
	}
	if j := p.judge(); j.snapshot.Revision != 2 {
		t.Errorf("revision %d in force, want 2", j.snapshot.Revision)
	}
	held.release()
	p.closing.Wait()
	select {
	case <-b.engines[1].closed:
	default:
		t.Error("the old engine is open after its last question")
	}
	if held.take() {
		t.Error("a closed judge was taken")
	}
}

func TestABadRevisionChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBuild()
	p := b.policies(nil)
	p.apply(t.Context(), revision(1, "a"))
	b.errs[2] = errors.New("bad")
	p.apply(t.Context(), revision(2, "b"))
	p.apply(t.Context(), revision(3, "panic"))
	j := p.judge()
	defer j.release()
	if j.snapshot.Revision != 1 {
		t.Errorf("revision %d in force, want 1", j.snapshot.Revision)
	}
}

func TestTheSameRevisionIsNotBuiltAgain(t *testing.T) {
	t.Parallel()
	b := newBuild()
	p := b.policies(nil)
	for range 3 {
		p.apply(t.Context(), revision(1, "a"))
	}
	if b.tries != 1 {
		t.Errorf("built %d times, want 1", b.tries)
	}
}

// silent is a policySource that gives one revision.
type silent struct{ r *usherv1.PolicyRevision }

func (s silent) WatchPolicy(ctx context.Context, f func(*usherv1.PolicyRevision)) error {
	f(s.r)
	<-ctx.Done()
	return nil
}

func TestARevisionIsTriedAgainUntilItsSecretIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuild()
		b.errs[1] = errors.New("no such file")
		p := b.policies(silent{revision(1, "a")})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		if err := p.check(); err == nil {
			t.Error("ready without a policy")
		}
		b.mu.Lock()
		delete(b.errs, 1)
		b.mu.Unlock()
		time.Sleep(retryEvery + time.Second)
		select {
		case <-p.ready:
		default:
			t.Error("the revision was not tried again")
		}
		if err := p.check(); err != nil {
			t.Errorf("readiness: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		select {
		case <-b.engines[1].closed:
		default:
			t.Error("the engine is open after the end")
		}
	})
}

func TestPoliciesUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBuild()
	p := b.policies(nil)
	p.apply(t.Context(), revision(1, "a"))
	stop := make(chan struct{})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				j := p.judge()
				select {
				case <-j.engine.(*fakeEngine).closed:
					t.Error("a question got a closed engine")
				default:
				}
				j.release()
			}
		})
	}
	for n := int64(2); n < 200; n++ {
		p.apply(t.Context(), revision(n, "a"))
	}
	close(stop)
	askers.Wait()
	p.closing.Wait()
	for n := int64(1); n < 199; n++ {
		select {
		case <-b.engines[n].closed:
		default:
			t.Fatalf("engine of revision %d is still open", n)
		}
	}
}

func TestABlindPolicyIsTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	located := &policy.Snapshot{Revision: 1, Located: []policy.Problem{{Message: "country"}}}
	compile := func(r *usherv1.PolicyRevision) (*policy.Snapshot, engine, error) {
		e := newFakeEngine(func(context.Context, *access.Request) decide.Verdict { return decide.Verdict{} })
		if r.GetRevision() == 1 {
			return located, e, nil
		}
		return &policy.Snapshot{Revision: r.GetRevision()}, e, nil
	}
	databases := 0
	p := newPolicies(nil, compile, slog.New(slog.NewTextHandler(&log, nil)), newMetrics("w1", registry))
	p.databases = func() int { return databases }
	expect := func(what string, value float64, lines int) {
		t.Helper()
		if got := gauge(t, registry, "usher_worker_policy_blind"); got != value {
			t.Errorf("%s: usher_worker_policy_blind = %v, want %v", what, got, value)
		}
		if got := strings.Count(log.String(), "no country database is loaded"); got != lines {
			t.Errorf("%s: told %d times, want %d", what, got, lines)
		}
	}
	p.apply(t.Context(), revision(1, "a"))
	expect("no database", 1, 1)
	p.look(t.Context())
	expect("still none", 1, 1)
	databases = 1
	p.look(t.Context())
	expect("the database has come", 0, 1)
	databases = 0
	p.apply(t.Context(), revision(2, "b"))
	expect("nothing looks at countries", 0, 1)
}

// gauge is the value of a metric with one series.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
