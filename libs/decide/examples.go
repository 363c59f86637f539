package decide

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/geo"
	"usher.internal/libs/match"
	"usher.internal/libs/middleware"
	"usher.internal/libs/policy"
)

// RunExamples asks every example of the policy and returns a problem for each whose
// outcome is not the expected one. Verifiers judge for real; middlewares are never
// asked, so that an example that reaches one is as if it were down and nobody known:
// it ends by the fail mode, for a stranger.
func (e *Engine) RunExamples(ctx context.Context) []config.Problem {
	var problems []config.Problem
	for _, r := range e.snapshot.Rules {
		for i := range r.Examples {
			if p, bad := e.runExample(ctx, &r.Examples[i]); bad {
				problems = append(problems, p)
			}
		}
	}
	return problems
}

func (e *Engine) runExample(ctx context.Context, x *policy.Example) (config.Problem, bool) {
	p := x.Place
	req, err := e.exampleRequest(x)
	if err != nil {
		p.Message = err.Error()
		return p, true
	}
	var asked atomic.Bool
	own := *e // same checks and rules, other stores and clock
	own.deps.Claims, own.deps.Known, own.deps.Grants = agreeing{}, nothing{}, nothing{}
	own.deps.Subscribers = unasked{asked: &asked}
	own.deps.Failed = func(string) {}
	own.deps.Observe, own.deps.Asked = func(string, string, time.Duration) {}, func(Asking) {}
	own.flights = new(middleware.Flights[said])
	if own.aliaser != nil {
		own.aliaser = itself{}
	}
	own.deps.Place = func(netip.Addr) geo.Place { return geo.Place{Country: x.Country, ASN: x.ASN} }
	if !x.At.IsZero() {
		own.deps.Now = func() time.Time { return x.At }
	}
	own.upstream = func(context.Context, *check, *access.Request) (middleware.Answer, error) {
		asked.Store(true)
		return middleware.Answer{}, fmt.Errorf("%w: examples do not ask it", middleware.ErrUnavailable)
	}
	v := own.Decide(ctx, req)
	if v.Would != "" {
		// What an author expects of the policy is its word, also where it is only tried out.
		v.Outcome, v.Reason = v.Would, v.WouldReason
	}
	if x.Expect == string(v.Outcome) || x.Expect == string(v.Reason) {
		return p, false
	}
	p.Message = fmt.Sprintf("the example expects %s, the policy says %s, %s (%s)", x.Expect, v.Outcome, v.Reason, v.Text)
	if v.Rule != nil {
		p.Message += ", by " + v.Rule.Name()
	}
	if asked.Load() {
		p.Message += "; examples do not ask middlewares or for subscribers: what they would say is not known here"
	}
	return p, true
}

// unasked is Subscribers for examples: they note that somebody would have been asked.
type unasked struct {
	nothing
	asked *atomic.Bool
}

// ByToken implements Subscribers.
func (u unasked) ByToken(context.Context, string, access.Key) (Found, error) {
	u.asked.Store(true)
	return Found{}, errNoStore
}

// ByLogin implements Subscribers.
func (u unasked) ByLogin(context.Context, string, string) (Found, error) {
	u.asked.Store(true)
	return Found{}, errNoStore
}

// agreeing is Claims for examples: each is the first that ever came.
type agreeing struct{ nothing }

// First implements Claims.
func (agreeing) First(_ context.Context, _ access.Key, value string) (string, error) {
	return value, nil
}

// exampleRequest is the question that the example stands for, as its node's edge
// would have read it. An Astra names its channel beside the URL: its examples
// should give stream.
func (e *Engine) exampleRequest(x *policy.Example) (*access.Request, error) {
	req := &access.Request{
		Node: x.Node, Stream: x.Stream, Token: x.Token, IP: x.IP, UserAgent: x.UserAgent, Referer: x.Referer, Received: time.Now(),
	}
	node := e.snapshot.Nodes[x.Node]
	if node != nil {
		req.Caller = node.Caller
	}
	if x.URL == "" || node == nil {
		return req, nil
	}
	u, err := url.Parse(x.URL)
	if err != nil {
		return nil, errors.New("the example's url cannot be read")
	}
	req.Path, req.Query, req.Host = u.EscapedPath(), u.RawQuery, u.Hostname()
	req.Archive = match.Archive(req.Path)
	var ok bool
	if node.URL != nil {
		req.Stream, ok = node.URL.Stream(req.Path)
	} else {
		req.Stream, ok = match.DefaultStream(req.Path)
	}
	if !ok {
		return nil, fmt.Errorf("no stream's name can be read out of the example's url, as node %s reads it", x.Node)
	}
	if req.Token == "" {
		req.Token = exampleToken(node.Token, u)
	}
	return req, nil
}

// exampleToken finds the token in the first of the node's places that an URL has.
func exampleToken(places []string, u *url.URL) string {
	for _, place := range places {
		kind, name, _ := strings.Cut(place, ":")
		switch kind {
		case "query":
			if t := u.Query().Get(name); t != "" {
				return t
			}
		case "path":
			elements := strings.Split(strings.Trim(u.Path, "/"), "/")
			if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(elements) && elements[n-1] != "" {
				return elements[n-1]
			}
		}
	}
	return ""
}
