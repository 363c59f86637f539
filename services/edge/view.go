package edge

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

// defaultGrace is how long running sessions go on where a rule names no time.
const defaultGrace = 12 * time.Hour

// view is the edge's part of one policy revision, compiled and immutable.
type view struct {
	revision int64
	nodes    map[string]*caller.Node
	rules    []*rule
	index    *match.Index // of rules
	aliases  *aliases     // nil: names are the streams' own
	// playlists are the checks whose users fetch playlists here, with the proxies that are believed.
	playlists map[string][]netip.Prefix
}

// rule is what an edge knows of one entry of the policy's streams.
type rule struct {
	fail  access.FailMode
	grace time.Duration
	// upstream: a middleware may be asked, so that one attempt takes the whole budget.
	upstream bool
	// tokenless: a viewer without a token may be let in.
	tokenless bool
	// shadow: the rule is only tried out.
	shadow bool
	// conditional: whether it is the stream's rule only a worker can tell.
	conditional bool
	// digest tells revisions of the rule apart, 0 where that is not known.
	digest uint32
	// onDeny is where a refused viewer is sent, by reason.
	onDeny map[string]string
}

// noRule stands for streams that no rule matches. A worker says so, and audits it.
var noRule = &rule{fail: access.FailDeny, tokenless: true}

// compile makes a view. An error leaves nothing half-applied: the old view stays.
func compile(p *usherv1.Projection, adapters map[string]caller.Adapter) (*view, error) {
	v := &view{revision: p.GetRevision(), nodes: make(map[string]*caller.Node, len(p.GetNodes()))}
	for _, nv := range p.GetNodes() {
		a := adapters[nv.GetCaller()]
		if a == nil {
			// Callers of a newer version: their questions are refused, the rest works.
			continue
		}
		n, err := caller.Compile(nv, a.Budget())
		if err != nil {
			return nil, err
		}
		v.nodes[n.Name] = n
	}
	globs := make([]*match.Glob, 0, len(p.GetStreams()))
	for _, sv := range p.GetStreams() {
		g, err := match.ParseGlob(sv.GetMatch())
		if err != nil {
			return nil, fmt.Errorf("streams: match %q: %w", sv.GetMatch(), err)
		}
		globs = append(globs, g)
		v.rules = append(v.rules, &rule{
			fail: failMode(sv.GetOnUnavailable()), grace: graceOf(sv.GetGraceMs()),
			upstream: sv.GetUpstream(), tokenless: sv.GetTokenless(), conditional: sv.GetConditional(), shadow: sv.GetShadow(), digest: sv.GetDigest(),
			onDeny: addresses(p, sv.GetOnDeny()),
		})
	}
	v.index = match.NewIndex(globs)
	var err error
	if v.playlists, err = compilePlaylists(p); err != nil {
		return nil, err
	}
	v.aliases, err = compileAliases(p.GetAliases(), v.rules)
	return v, err
}

// rule finds what the edge may do by itself with a stream: the first entry that matches or, as
// long as those have conditions that only a worker can judge, the cautious union of all that may
// be the stream's.
func (v *view) rule(stream string) *rule {
	i := v.index.First(stream)
	switch {
	case i < 0:
		return noRule
	case !v.rules[i].conditional:
		return v.rules[i]
	}
	union := *v.rules[i]
	for union.conditional {
		if i = v.index.Next(stream, i); i < 0 {
			// Perhaps none of them is. Who was let in before was let in by one of them.
			union.join(&rule{fail: access.FailGrace, grace: union.grace, tokenless: true, onDeny: union.onDeny})
			break
		}
		union.join(v.rules[i])
	}
	return &union
}

// join makes the rule as cautious as both. It is conditional only if both are. Addresses for
// who is refused are left where the two differ.
func (r *rule) join(o *rule) {
	r.fail, r.grace = stricter(r.fail, o.fail), min(r.grace, o.grace)
	r.upstream, r.tokenless = r.upstream || o.upstream, r.tokenless || o.tokenless
	r.shadow = r.shadow || o.shadow // then a worker is asked about who was evicted
	r.conditional = o.conditional
	r.digest = r.digest*31 + o.digest
	if !maps.Equal(r.onDeny, o.onDeny) {
		r.onDeny = nil
	}
}

// stricter is the mode that lets fewer viewers in.
func stricter(a, b access.FailMode) access.FailMode {
	switch {
	case a == access.FailDeny || b == access.FailDeny:
		return access.FailDeny
	case a == access.FailGrace || b == access.FailGrace:
		return access.FailGrace
	}
	return access.FailAllow
}

// failMode reads a mode; one that this version does not know denies.
func failMode(text string) access.FailMode {
	switch m := access.FailMode(text); m {
	case access.FailAllow, access.FailGrace:
		return m
	case "":
		return access.FailGrace
	default:
		return access.FailDeny
	}
}

func graceOf(ms int64) time.Duration {
	if ms <= 0 {
		return defaultGrace
	}
	return time.Duration(ms) * time.Millisecond
}

// addresses are the entry of that number, from 1.
func addresses(p *usherv1.Projection, number int32) map[string]string {
	if number < 1 || int(number) > len(p.GetOnDeny()) {
		return nil
	}
	return p.GetOnDeny()[number-1].GetAddresses()
}

// send says where a viewer goes whom the edge denies by itself.
func (q *question) send(d *access.Decision) {
	if q.rule == nil || d.Outcome == access.Allow {
		return
	}
	to, ok := q.rule.onDeny[string(d.Reason)]
	if !ok {
		to = q.rule.onDeny["*"]
	}
	d.Location = access.Address(to, q.Stream, d.Reason, d.ID)
}
