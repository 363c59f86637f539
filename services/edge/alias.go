package edge

import (
	"fmt"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/schemas/proto/usherv1"
)

// aliases are what an edge knows of them. Sessions go by the names that viewers ask for;
// rules, rows and seats by the streams' own.
type aliases struct {
	names  *match.Aliases
	strict bool
	// asked says that a worker asks a service about all other names.
	asked bool
	// unknown stands for the rule of a name that only the service could tell.
	unknown *rule
}

func compileAliases(v *usherv1.AliasView, rules []*rule) (*aliases, error) {
	if v == nil {
		return nil, nil
	}
	names, err := match.NewAliases(v.GetNames())
	if err != nil {
		return nil, fmt.Errorf("aliases: %w", err)
	}
	return &aliases{names: names, strict: v.GetStrict(), asked: v.GetAsked(), unknown: cautious(rules)}, nil
}

// cautious is what holds for a stream of which nobody knows the rule: no viewer is refused
// without a worker's word, and none is let in whom any rule would not let in.
func cautious(rules []*rule) *rule {
	r := &rule{fail: access.FailAllow, grace: defaultGrace, upstream: true, tokenless: true}
	if len(rules) == 0 {
		r.fail = access.FailDeny
	}
	for _, known := range rules {
		switch {
		case known.fail == access.FailDeny:
			r.fail = access.FailDeny
		case known.fail == access.FailGrace && r.fail == access.FailAllow:
			r.fail = access.FailGrace
		}
		if known.fail == access.FailGrace {
			r.grace = min(r.grace, known.grace)
		}
	}
	return r
}

// find gives the stream's own name, as far as it is known, and its rule.
func (v *view) find(asked string) (own string, r *rule) {
	a := v.aliases
	if a == nil {
		return asked, v.rule(asked)
	}
	if own, ok := a.names.Stream(asked); ok {
		return own, v.rule(own)
	}
	switch {
	case a.strict && a.names.Hides(asked):
		return asked, noRule
	case a.asked:
		return asked, a.unknown
	}
	return asked, v.rule(asked)
}

// known takes over what a running session's opening said of the stream: its rule is judged by
// while no worker, or the workers' aliaser, can be asked.
func (q *question) known(g *grant) {
	if g.stream == "" {
		return
	}
	q.Known = g.stream
	if a := q.view.aliases; a != nil && a.asked && q.rule == a.unknown {
		own := *q.view.rule(g.stream)
		own.upstream = true
		q.own, q.rule = g.stream, &own
	}
}

// told reads a worker's reply, which may know the stream's own name.
func (q *question) told(r *usherv1.AuthReply) access.Decision {
	d := decision(r)
	if d.Stream != "" {
		q.own = d.Stream
	}
	return d
}
