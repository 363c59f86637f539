package decide

import (
	"context"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/access"
	"usher.internal/libs/condition"
	"usher.internal/libs/directive"
	"usher.internal/libs/geo"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
)

// judgement is one question on its way through an Engine.
type judgement struct {
	*Engine
	rule    *rule
	req     *access.Request
	place   geo.Place // of the viewer's address
	trail   *trail
	verdict Verdict
	facts   *condition.Facts // what expressions see; nil until the first one is asked
	// verifiers and upstreams are the rule's checks that are for this question.
	verifiers, upstreams []*check
	// unknown says that a check was away, and grace did not know the viewer.
	unknown bool
	// early brings the word of the check that answers in shadow, nil if it was not asked; endEarly
	// ends that question and waits until it has.
	early    chan said
	endEarly func()
	// ordersLimit says that the limit is an operator's order: it holds, whatever is tried out.
	ordersLimit bool

	// orders are the directives that act on this question, seen is the viewer before anybody knows
	// his account, ruling the override that decides in place of the policy, nil if none.
	orders *directive.Set
	seen   directive.Viewer
	ruling *directive.Directive
	// authed says that it was the rule's auth that decided, and nothing before it.
	authed bool
	// number is the limit that a check gave with its yes, 0 for none.
	number int
	// reach is how far into the archive a check said that the viewer may go, nil if none said so.
	reach *access.Reach
	// acceptedBy is the check that let the viewer in, "" if none did alone.
	acceptedBy string
	// accounts are whom the checks of `all` took the viewer for: he is counted as one of them, and
	// banned as any.
	accounts []directive.Viewer
}

// Decide judges the question. It always returns a verdict, and does so by ctx's end:
// what could not be asked by then was not available. Steps, texts and logs hold no
// part of token or query.
func (e *Engine) Decide(ctx context.Context, req *access.Request) Verdict {
	ctx, span := e.deps.Tracer.Start(ctx, "decide")
	defer span.End()
	place := e.deps.Place(req.IP)
	j := &judgement{Engine: e, req: req, place: place, trail: newTrail(), endEarly: func() {}, verdict: Verdict{
		Outcome: access.Deny, Limit: -1, Node: e.snapshot.Nodes[req.Node], Stream: req.Stream, asked: req.Stream, Country: place.Country,
	}}
	defer func() { j.endEarly() }()
	j.judge(ctx)
	j.shadow(ctx)
	if j.verdict.Outcome == access.Deny {
		j.verdict.Location = j.verdict.Address(j.verdict.Reason, req.ID)
	}
	j.verdict.Steps = j.trail.steps
	if span.IsRecording() {
		record(span, &j.verdict)
	}
	return j.verdict
}

func record(span trace.Span, v *Verdict) {
	rule := ""
	if v.Rule != nil {
		rule = v.Rule.Name()
	}
	span.SetAttributes(
		attribute.String("rule", rule),
		attribute.String("outcome", string(v.Outcome)),
		attribute.String("reason", string(v.Reason)),
	)
}

// stages are the way of a question, in order (DESIGN.md §3, Policy): each says whether it
// has decided, and the first that has ends it.
var stages = [...]func(*judgement, context.Context) bool{
	(*judgement).node,
	(*judgement).publish,
	(*judgement).alias,
	(*judgement).bans,
	(*judgement).overrides,
	(*judgement).find,
	(*judgement).ruled,
	(*judgement).client,
	(*judgement).lists,
	(*judgement).domain,
	(*judgement).ownRules,
	(*judgement).askEarly,
	(*judgement).auth,
}

// afterwards are what follows once it is known whose the viewer's session would be: each says
// whether it has decided otherwise, and the first that has ends it.
var afterwards = [...]func(*judgement, context.Context) bool{
	(*judgement).userBans,
	(*judgement).userOverrides,
	(*judgement).userRules,
	(*judgement).archive,
	(*judgement).limitOverride,
}

// judge goes through the stages.
func (j *judgement) judge(ctx context.Context) {
	for _, list := range [...][]func(*judgement, context.Context) bool{stages[:], afterwards[:]} {
		for _, decided := range list {
			if decided(j, ctx) {
				break
			}
		}
	}
}

// node refuses who is not listed.
func (j *judgement) node(context.Context) bool {
	if j.verdict.Node != nil {
		return false
	}
	j.trail.add("node", "unknown", "")
	j.verdict.deny(access.UnknownNode, "", "")
	return true
}

// publish refuses who wants to send a stream, or to do what this version does not know: the
// rules of streams are for those who watch, and a subscriber's token is no right to publish.
func (j *judgement) publish(context.Context) bool {
	if j.req.Action == "" || j.req.Action == access.Play {
		return false
	}
	j.trail.add("action", no, string(j.req.Action))
	j.verdict.deny(access.NoRule, "no rule of the policy is about publishing", "")
	return true
}

// find looks for the rule; without one nobody gets in.
func (j *judgement) find(context.Context) bool {
	var failed error
	found := j.snapshot.RuleWhere(j.req.Stream, func(r *policy.Rule) bool { return j.applies(r, &failed) })
	if found == nil {
		j.trail.add("rule", "none", "")
		if j.ruling != nil {
			j.rule, j.verdict.Rule = unruled, unruled.Rule
			return false
		}
		j.verdict.deny(access.NoRule, "", "")
		return true
	}
	j.rule, j.verdict.Rule, j.verdict.targets = j.rules[found], found, found.OnDeny
	if failed != nil {
		// The next rule may be a milder one, so that nobody is let in by it.
		j.trail.add("when", failedResult, found.Name())
		j.verdict.deny(access.DenyRule, "whether the rule "+found.Name()+" is for this question could not be told: its when failed", "")
		return true
	}
	j.trail.add("rule", "match", found.Name())
	return false
}

// auth asks the rule's checks.
func (j *judgement) auth(ctx context.Context) bool {
	j.authed = true
	switch j.rule.Auth {
	case policy.AuthAllow:
		j.trail.add("auth", yes, "")
		j.allow(&j.verdict, j.req, access.AllowRule, j.rule.Name()+" lets everybody in", welcome{})
	case policy.AuthAny:
		if j.choose() {
			j.any(ctx)
		}
	case policy.AuthAll:
		if j.choose() {
			j.all(ctx)
		}
	default: // AuthDeny, and whatever this version does not know
		j.trail.add("auth", no, "")
		j.verdict.deny(access.DenyRule, j.rule.Name()+" lets nobody in", "")
	}
	return true
}

// lists says whether an allow or deny list decided. An allow list bypasses the
// checks, so that it knows no user and counts no limit (spec flussonic §4).
func (j *judgement) lists(context.Context) bool {
	if !j.rule.listed {
		return false
	}
	v := &viewer{ip: j.req.IP, ua: j.req.UserAgent, place: j.place}
	if len(j.rule.allow.tokens)+len(j.rule.deny.tokens) > 0 {
		v.token = j.deps.Keyer.Fingerprint(j.req.Token)
	}
	name, allowed := j.rule.onList(v)
	switch {
	case name == "":
		j.trail.add("lists", "no match", "")
		return false
	case allowed:
		j.trail.add(name, yes, "")
		j.allow(&j.verdict, j.req, access.AllowRule, "on the list "+name+" of "+j.rule.Name(), welcome{unlimited: true})
	default:
		j.trail.add(name, no, "")
		j.verdict.deny(access.DenyRule, "on the list "+name+" of "+j.rule.Name(), "")
	}
	return true
}

// domain says whether the domain lock denied.
func (j *judgement) domain(context.Context) bool {
	if len(j.rule.domains) == 0 {
		return false
	}
	if j.rule.embeds(j.req.Referer) {
		j.trail.add("domains", "pass", "")
		return false
	}
	j.trail.add("domains", no, "")
	j.verdict.deny(access.DomainLock, "the page that embeds the player is not in the domains of "+j.rule.Name(), "")
	return true
}

// question is what verifiers may look at.
func (j *judgement) question() *token.Question {
	return &token.Question{
		Token: j.req.Token, Query: j.req.Query, Stream: j.req.Stream, Requested: j.requested(), Path: j.req.Path,
		Host: j.req.Host, UserAgent: j.req.UserAgent,
		IP: j.req.IP, Now: j.deps.Now(), Running: j.req.Session != uuid.Nil,
	}
}

// requested is the name that the viewer asked for.
func (j *judgement) requested() string {
	if j.req.Requested != "" {
		return j.req.Requested
	}
	return j.req.Stream
}
