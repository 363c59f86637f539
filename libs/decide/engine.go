package decide

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	nethttp "net/http"
	"net/netip"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/geo"
	"usher.internal/libs/middleware"
	"usher.internal/libs/network"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
	"usher.internal/libs/token/jwt"
)

// Deps are what an Engine works with. Only Keyer must be given.
type Deps struct {
	Keyer *access.Keyer
	// Claims and Known: without them a token that needs a claim cannot be judged, and
	// nobody is known.
	Claims Claims
	Known  Known
	// Grants: without them a middleware is asked every time.
	Grants Grants
	// Subscribers answer checks of type users; without them such a check cannot be asked.
	// Passwords remembers their passwords over revisions; nil for one of the engine's own.
	Subscribers Subscribers
	Passwords   *subscriber.Passwords
	// Directives are the bans and overrides in force now; nil, and a nil Set: none.
	Directives func() *directive.Set
	// HTTP carries questions to middlewares and fetches key sets; nil gives each its own pool.
	HTTP nethttp.RoundTripper
	// Keys remembers fetched key sets from one revision of the policy to the next; nil: the
	// engine forgets them. Fetched is told when a check's keys were read last.
	Keys    *jwt.Memory
	Fetched func(check string, at time.Time)
	// Place finds country and operator of an address; nil: rules on them match nothing.
	Place func(netip.Addr) geo.Place
	// Networks opens the policy's lists that come from files, and keeps them fresh; nil
	// reads them once.
	Networks NetworkFiles
	Log      *slog.Logger
	Now      func() time.Time
	Tracer   trace.Tracer
	// Observe is told how each check ended for each question and how long it took.
	Observe func(check, result string, d time.Duration)
	// Failed is told of each own rule, or condition of a rule or limit, whose expression gave no
	// answer: by the rule's name, or the condition's place.
	Failed func(rule string)
	// Asked is told of each time that a verifier judged or a middleware was really asked:
	// neither of answers that several questions share, but once, nor of grants.
	Asked func(Asking)
}

// Asking is how one question to a check ended.
type Asking struct {
	Check  *policy.Check
	Result string // Yes, No, or Unavailable
	Text   string // in words, without secrets
	Open   bool   // its breaker kept it from being asked
	Took   time.Duration
}

// withDefaults fills in what was left out.
func (d Deps) withDefaults() Deps {
	if d.Claims == nil {
		d.Claims = nothing{}
	}
	if d.Known == nil {
		d.Known = nothing{}
	}
	if d.Grants == nil {
		d.Grants = nothing{}
	}
	if d.Subscribers == nil {
		d.Subscribers = nothing{}
	}
	if d.Directives == nil {
		d.Directives = func() *directive.Set { return nil }
	}
	if d.Place == nil {
		d.Place = func(netip.Addr) geo.Place { return geo.Place{} }
	}
	if d.Fetched == nil {
		d.Fetched = func(string, time.Time) {}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Networks == nil {
		d.Networks = network.NewFiles(d.Log)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Tracer == nil {
		d.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if d.Failed == nil {
		d.Failed = func(string) {}
	}
	if d.Observe == nil {
		d.Observe = func(string, string, time.Duration) {}
	}
	if d.Asked == nil {
		d.Asked = func(Asking) {}
	}
	return d
}

// Engine decides by one immutable revision of the policy. It is safe for
// concurrent use.
type Engine struct {
	deps     Deps
	snapshot *policy.Snapshot
	networks map[string]*network.List
	// Own rules of all streams that do not read the user, and those that do.
	ownBefore, ownAfter ownRules
	checks              map[string]*check
	rules               map[*policy.Rule]*rule
	clients             []client // in the policy's order
	// clientTokens says that a client is known by a token.
	clientTokens bool
	aliaser      aliasing // nil: names that the policy does not know are the streams' own
	// flights lets equal questions share looking for a grant, asking and keeping.
	flights *middleware.Flights[said]
	// upstream asks a middleware; examples put their own in its place.
	upstream func(context.Context, *check, *access.Request) (middleware.Answer, error)
}

func askUpstream(ctx context.Context, c *check, req *access.Request) (middleware.Answer, error) {
	return c.middleware.Ask(ctx, req)
}

// New makes every check of the policy ready: it reads secrets and lists of networks, opens
// connection pools and begins to fetch key sets. All that cannot be opened is named in the error.
func New(s *policy.Snapshot, d Deps) (*Engine, error) {
	if d.Keyer == nil {
		return nil, errors.New("an engine needs the cluster's keyer")
	}
	e := &Engine{
		deps: d.withDefaults(), snapshot: s, upstream: askUpstream,
		flights: new(middleware.Flights[said]),
		checks:  map[string]*check{}, rules: map[*policy.Rule]*rule{},
	}
	errs := e.openNetworks()
	e.ownBefore, e.ownAfter = own(s.Own, false), own(s.Own, true)
	for _, name := range slices.Sorted(maps.Keys(s.Checks)) {
		c := s.Checks[name]
		opened, err := open(c, &e.deps)
		if err != nil {
			errs = append(errs, fmt.Errorf("check %s: %w", name, err))
			continue
		}
		if c.For != nil {
			opened.area = e.area(&c.For.Network)
		}
		e.checks[name] = opened
	}
	for _, r := range s.Rules {
		compiled, err := e.compile(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e.rules[r] = compiled
	}
	e.compileClients()
	var err error
	if e.aliaser, err = openAliaser(s.Aliases, &e.deps); err != nil {
		errs = append(errs, fmt.Errorf("aliases: %w", err))
	}
	if len(errs) > 0 {
		e.Close()
		return nil, errors.Join(errs...)
	}
	return e, nil
}

// Close waits for questions to middlewares that are under way, each bounded by its
// timeout, and gives their connections back.
func (e *Engine) Close() {
	e.flights.Wait()
	for _, c := range e.checks {
		c.stop()
	}
	if e.aliaser != nil {
		e.aliaser.Close()
	}
}
