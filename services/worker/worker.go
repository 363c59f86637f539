// Package worker is the backend worker: it takes the questions of its region's edges from a
// NATS queue group, decides them by the policy, takes the seat and writes the audit row in
// one group commit, and answers. It renews and closes seats, and tells all edges at once
// which sessions were ended by force. It keeps nothing of its own: any number of workers
// may run, and one that dies is missed by nobody (DESIGN.md §2).
//
// README.md tells what it answers when something is down.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/token/jwt"
	"usher.internal/schemas/nats"
)

var errNoNATS = errors.New("not connected to NATS")

// Deps are the things that a worker uses and neither runs nor closes.
type Deps struct {
	Bus    *bus.Conn
	Ledger admission.Ledger
	// Committer, if given, is the group commit that the workers of one process share, in place of
	// one each on Ledger: half as many calls cost nearly half as much. Whoever made it
	// (NewCommitter) runs it, longer than the workers.
	Committer *admission.Committer
	Outbox    Outbox
	// Sessions may be nil: then what nodes say of sessions that their edges don't know is lost.
	Sessions Sessions
	// Claims and Known may be nil: then a token that needs a claim cannot be judged, and
	// the fail mode grace knows nobody.
	// Without Grants a middleware is asked at every decision.
	Claims decide.Claims
	Known  decide.Known
	Grants decide.Grants
	// Checks shows operators how the checks do; nil: only log and metrics tell.
	Checks CheckStore
	Keyer  *access.Keyer
	// Subscribers answer checks of type users; nil: they cannot be asked.
	Subscribers decide.Subscribers
	// Telemetry gives logger, tracer and registry.
	Telemetry *telemetry.Telemetry
	// Directives has the bans and overrides in force at the start; nil: the control stream alone
	// tells them.
	Directives DirectiveStore
	// HTTP carries the middlewares' calls; nil gives each upstream its own pool.
	HTTP http.RoundTripper
	// Files are databases and lists that the process keeps fresh; nil: rules on countries match
	// nothing, and lists are read once.
	Files *Files
	// Now is the clock that tokens, grants and the policy's own times are judged by; nil: the
	// system's. Questions and seats go by the clocks of edge and database all the same.
	Now func() time.Time
	// Health gets the worker's readiness; nil takes one of its own, shown on Config.Admin.
	Health *lifecycle.Health
}

// Service is a worker. Create it with New and run it once.
type Service struct {
	cfg        Config
	deps       Deps
	log        *slog.Logger
	health     *lifecycle.Health
	policies   *policies
	committer  *admission.Committer
	directives *directives
	board      *board
	announcer  *announcer
	answerer   *answerer
	keeper     *keeper
}

// New puts a worker together; it starts nothing. The error is a name that cannot stand in a
// subject, or a missing dependency.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := errors.Join(nats.CheckToken("worker", cfg.Name), nats.CheckToken("region", cfg.Region)); err != nil {
		return nil, err
	}
	if deps.Bus == nil || deps.Ledger == nil && deps.Committer == nil || deps.Outbox == nil || deps.Keyer == nil || deps.Telemetry == nil {
		return nil, errors.New("worker needs bus, ledger, outbox, keyer and telemetry")
	}
	s := &Service{cfg: cfg.filled(), deps: deps, health: deps.Health}
	if s.health == nil {
		s.health = new(lifecycle.Health)
	}
	s.log = deps.Telemetry.Log.With(slog.String(telemetry.Worker, cfg.Name))
	s.assemble()
	s.health.Check("worker "+cfg.Name+": nats", s.connected)
	s.health.Check("worker "+cfg.Name+": policy", s.policies.check)
	return s, nil
}

func (s *Service) assemble() {
	m := newMetrics(s.cfg.Name, s.deps.Telemetry.Registry)
	tracer := s.deps.Telemetry.Tracer("usher.internal/services/worker")
	s.directives = newDirectives(s.deps.Directives, s.deps.Bus, s.log)
	deps := decide.Deps{
		Directives: s.directives.book.Set,
		Keyer:      s.deps.Keyer, Claims: s.deps.Claims, Known: s.deps.Known, Grants: s.deps.Grants,
		Subscribers: s.deps.Subscribers, Passwords: subscriber.NewPasswords(s.deps.Keyer), HTTP: s.deps.HTTP,
		Log: s.log, Now: s.deps.Now, Tracer: tracer, Failed: m.ruleFailed, Observe: m.checked,
		Keys: new(jwt.Memory), Fetched: m.keysFetched,
	}
	s.board = &board{
		worker: s.cfg.Name, store: s.deps.Checks, snapshot: s.snapshot, log: s.log, metrics: m, now: time.Now,
		checks: map[string]*standing{},
	}
	deps.Asked = s.board.asked
	databases := func() int { return 0 }
	if f := s.deps.Files; f != nil {
		deps.Place, deps.Networks, databases = f.Geo.Lookup, f.Networks, f.Geo.Databases
	}
	s.policies = newPolicies(s.deps.Bus, compileWith(deps), s.log, m)
	s.policies.databases = databases
	s.committer = s.deps.Committer
	if s.committer == nil {
		s.committer = NewCommitter(s.deps.Ledger, s.deps.Telemetry)
	}
	s.announcer = newAnnouncer(s.deps.Bus, s.deps.Outbox, s.log, m)
	s.answerer = &answerer{
		region: s.cfg.Region, policies: s.policies, ledger: s.committer,
		journal: journal{bus: s.deps.Bus, region: s.cfg.Region}, teller: s.announcer,
		keyer: s.deps.Keyer, tracer: tracer, log: s.log, metrics: m, now: time.Now,
	}
	s.keeper = &keeper{policies: s.policies, ledger: s.committer, sessions: s.deps.Sessions, teller: s.announcer, log: s.log, metrics: m}
}

// snapshot is the policy in force, nil before the first.
func (s *Service) snapshot() *policy.Snapshot {
	j := s.policies.judge()
	if j == nil {
		return nil
	}
	defer j.release()
	return j.snapshot
}

// connected is the readiness check of the bus. Postgres has none on purpose: a worker that
// cannot reach it still answers running sessions, and new ones by `uncounted`.
func (s *Service) connected() error {
	if !s.deps.Bus.Connected() {
		return errNoNATS
	}
	return nil
}

// Run works until ctx ends. Then it takes no more questions, answers those that it has
// taken, commits what they opened, tells the edges, and returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	// The order is the order of need: what stands first is stopped last.
	tasks := []lifecycle.Task{
		{Name: "announcer", Run: s.announcer.Run},
		{Name: "committer", Run: s.commit},
		{Name: "directives", Run: s.directives.Run},
		{Name: "policy", Run: s.policies.Run},
		{Name: "checks", Run: s.board.Run},
		{Name: "tick", Run: func(ctx context.Context) error { return tick(ctx, s.deps.Bus, s.log) }},
		{Name: "seats", Run: s.serveSeats},
		{Name: "playlists", Run: s.servePlaylists},
		{Name: "questions", Run: s.serveAuth},
	}
	if s.cfg.Admin != "" {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Admin)
		if err != nil {
			return fmt.Errorf("admin address: %w", err)
		}
		admin := lifecycle.Admin(l, lifecycle.AdminMux(s.health, s.deps.Telemetry.Registry), s.log)
		tasks = append([]lifecycle.Task{admin}, tasks...)
	}
	return lifecycle.Run(ctx, s.log, tasks...)
}

// NewCommitter makes a group commit as a worker makes its own.
func NewCommitter(l admission.Ledger, t *telemetry.Telemetry) *admission.Committer {
	return admission.NewCommitter(l, admission.CommitterOptions{Observe: newMetrics("", t.Registry).committed})
}

// commit runs the worker's own group commit, if it has one.
func (s *Service) commit(ctx context.Context) error {
	if s.deps.Committer == nil {
		return s.committer.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// serveAuth joins the queue group once there is a policy: until then the questions go to
// workers that can answer them.
func (s *Service) serveAuth(ctx context.Context) error {
	select {
	case <-s.policies.ready:
	case <-ctx.Done():
		return nil
	}
	s.directives.wait(ctx)
	s.log.InfoContext(ctx, "worker takes questions", slog.String(telemetry.Region, s.cfg.Region))
	return s.deps.Bus.ServeAuth(ctx, s.cfg.Region, s.cfg.Pool, s.cfg.Queue, s.answerer.answer)
}

// serveSeats waits for the policy too: without it nobody knows whose node a session is on.
func (s *Service) serveSeats(ctx context.Context) error {
	select {
	case <-s.policies.ready:
	case <-ctx.Done():
		return nil
	}
	return s.deps.Bus.ServeSeats(ctx, s.cfg.Region, seatsPool, seatsQueue, s.keeper.renew)
}
