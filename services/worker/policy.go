package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// retryEvery is how often a revision that could not be built is tried again: a secret's
// file may be put in place after the policy that names it.
const retryEvery = 10 * time.Second

// errNoPolicy is the readiness error of a worker that has never had a policy.
var errNoPolicy = errors.New("no policy is loaded yet")

// engine decides by one revision; *decide.Engine is one.
type engine interface {
	Decide(ctx context.Context, req *access.Request) decide.Verdict
	// Playlist writes an own subscriber's playlist.
	Playlist(ctx context.Context, check, token string, ip netip.Addr) (decide.Playlist, error)
	Close()
}

// policySource tells the revision in force and each later one; *bus.Conn is one.
type policySource interface {
	WatchPolicy(ctx context.Context, f func(*usherv1.PolicyRevision)) error
}

// compiler builds a revision into what decides by it, or says what is wrong with it.
type compiler func(*usherv1.PolicyRevision) (*policy.Snapshot, engine, error)

// judge is one revision, ready to decide. Whoever uses it holds a share; the engine is
// closed when the last share is given back after the judge was replaced.
type judge struct {
	snapshot *policy.Snapshot
	engine   engine
	closing  *sync.WaitGroup
	shares   atomic.Int64 // one for being in force, one for each question; 0 is final
}

func newJudge(s *policy.Snapshot, e engine, closing *sync.WaitGroup) *judge {
	j := &judge{snapshot: s, engine: e, closing: closing}
	j.shares.Store(1)
	return j
}

// take adds a share; false when the judge was replaced and closed meanwhile.
func (j *judge) take() bool {
	for {
		n := j.shares.Load()
		if n == 0 {
			return false
		}
		if j.shares.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (j *judge) release() {
	if j.shares.Add(-1) == 0 {
		// Close waits for a middleware's last answers; whoever was the last here answers a viewer.
		j.closing.Go(j.engine.Close)
	}
}

// policies holds the judge in force and replaces it as a whole: a revision that cannot be
// built changes nothing, the old one goes on.
type policies struct {
	source  policySource
	compile compiler
	log     *slog.Logger
	metrics *metrics
	current atomic.Pointer[judge]
	ready   chan struct{}  // closed when the first judge is in force
	closing sync.WaitGroup // of engines that were replaced
	// databases is how many tell the country of an address.
	databases func() int

	mu     sync.Mutex              // guards failed, and lets one apply run at a time
	failed *usherv1.PolicyRevision // the newest revision, if it could not be built
	blind  bool                    // told that the policy wants a database and there is none
}

func newPolicies(source policySource, c compiler, log *slog.Logger, m *metrics) *policies {
	return &policies{source: source, compile: c, log: log, metrics: m, ready: make(chan struct{}), databases: func() int { return 0 }}
}

// judge returns the judge in force with a share that the caller must release; nil before
// the first.
func (p *policies) judge() *judge {
	for {
		j := p.current.Load()
		// A judge that cannot be taken has been replaced, so that the next Load finds its successor.
		if j == nil || j.take() {
			return j
		}
	}
}

// check is the readiness check.
func (p *policies) check() error {
	if p.current.Load() == nil {
		return errNoPolicy
	}
	return nil
}

// Run follows the policy until ctx ends, then closes the judge in force.
func (p *policies) Run(ctx context.Context) error {
	var retries sync.WaitGroup
	retries.Go(func() { p.retry(ctx) })
	err := p.source.WatchPolicy(ctx, func(r *usherv1.PolicyRevision) { p.apply(ctx, r) })
	if ctx.Err() != nil {
		err = nil
	}
	retries.Wait()
	if old := p.current.Swap(nil); old != nil {
		old.release()
	}
	// Whoever asks has stopped before this, so that every share is back.
	p.closing.Wait()
	return err
}

// apply puts a revision in force if it can be built. The revision in force is not built again.
func (p *policies) apply(ctx context.Context, r *usherv1.PolicyRevision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replace(ctx, r)
}

// replace is apply under mu.
func (p *policies) replace(ctx context.Context, r *usherv1.PolicyRevision) {
	if old := p.current.Load(); old != nil && old.snapshot.Revision == r.GetRevision() && old.snapshot.Source == r.GetSource() {
		p.failed = nil
		return
	}
	again := p.failed.GetRevision() == r.GetRevision()
	snapshot, e, err := p.build(r)
	if err != nil {
		p.failed = r
		if !again {
			p.metrics.policyRejected.WithLabelValues().Inc()
			p.log.ErrorContext(ctx, "policy revision cannot be used, the old one stays",
				slog.Int64(telemetry.Revision, r.GetRevision()), slog.Any(telemetry.Error, err))
		}
		return
	}
	p.failed = nil
	old := p.current.Swap(newJudge(snapshot, e, &p.closing))
	if old == nil {
		close(p.ready)
	} else {
		old.release()
	}
	p.metrics.policyRevision(snapshot.Revision)
	p.log.InfoContext(ctx, "policy in force", slog.Int64(telemetry.Revision, snapshot.Revision))
	p.look(ctx)
}

// look tells when the policy wants to know countries and nothing knows them, under mu.
func (p *policies) look(ctx context.Context) {
	j := p.current.Load()
	blind := j != nil && len(j.snapshot.Located) > 0 && p.databases() == 0
	if blind && !p.blind {
		p.log.WarnContext(ctx, "no country database is loaded, rules on country and asn match nothing",
			slog.Int64(telemetry.Revision, j.snapshot.Revision), slog.Int(telemetry.Count, len(j.snapshot.Located)))
	}
	p.blind = blind
	p.metrics.policyBlind(blind)
}

// build compiles and keeps a panic of it from ending the worker: the text comes from outside.
func (p *policies) build(r *usherv1.PolicyRevision) (s *policy.Snapshot, e engine, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("building the policy panicked", slog.Any(telemetry.Panic, v), slog.String(telemetry.Stack, string(debug.Stack())))
			err = fmt.Errorf("building the policy: panic: %v", v)
		}
	}()
	return p.compile(r)
}

// retry builds the newest revision again while it cannot be used.
func (p *policies) retry(ctx context.Context) {
	every := time.NewTicker(retryEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		p.mu.Lock()
		if p.failed != nil {
			p.replace(ctx, p.failed)
		}
		p.look(ctx)
		p.mu.Unlock()
	}
}

// compileWith parses a revision's text and builds its engine.
func compileWith(deps decide.Deps) compiler {
	return func(r *usherv1.PolicyRevision) (*policy.Snapshot, engine, error) {
		name := fmt.Sprintf("policy revision %d", r.GetRevision())
		s, err := policy.Parse(name, []byte(r.GetSource()), decide.Kinds())
		if err != nil {
			return nil, nil, fmt.Errorf("parsing: %w", err)
		}
		s.Revision = r.GetRevision()
		e, err := decide.New(s, deps)
		if err != nil {
			return nil, nil, fmt.Errorf("building: %w", err)
		}
		return s, e, nil
	}
}
