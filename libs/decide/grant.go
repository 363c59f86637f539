package decide

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// keepAtMost bounds how long a grant's way into the store may take.
const (
	keepAtLeast = 20 * time.Millisecond
	keepAtMost  = 250 * time.Millisecond
)

// held is what earlier answers of the rule's middlewares are worth for a question.
type held struct {
	of     map[*check]For
	grants map[string]Grant // by check
	dues   map[string]bool  // grants that are to be asked about again
	blind  bool             // they could not be looked up
}

// findGrants looks for what middlewares granted before: in one question, unless they know the
// viewer by different things. One whom a middleware knows by nothing has nothing that its
// grant could be kept under.
func (j *judgement) findGrants(ctx context.Context) *held {
	h := &held{of: map[*check]For{}, grants: map[string]Grant{}, dues: map[string]bool{}}
	var all []For
	for _, c := range j.upstreams {
		f := For{Who: j.who(c, j.req), Stream: j.req.Stream, IP: j.req.IP}
		if h.of[c] = f; !f.Who.IsZero() && !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, grantTime(ctx))
	defer cancel()
	for _, f := range all {
		found, err := j.deps.Grants.Find(ctx, f, j.running())
		if err != nil {
			h.blind = true
			j.trail.add("grants", unavailable, "what middlewares granted before cannot be looked up")
			j.deps.Log.DebugContext(ctx, "grants cannot be looked up", slog.Any("error", err))
			return h
		}
		for _, c := range j.upstreams {
			if h.of[c] == f {
				j.hold(h, c, found)
			}
		}
	}
	return h
}

// grantTime bounds the look-up: longer than one of a last word, since without it a token that
// is good only once is asked about again, and a viewer with a right is refused.
func grantTime(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return 4 * lookUpTime
	}
	return min(max(time.Until(end)/4, lookUpTime), 4*lookUpTime)
}

// hold picks the check's grant: that of this address is the session's own, of others that
// which holds longest. What the check granted when it was of another realm is worth nothing:
// that one's user 17 is somebody else.
func (j *judgement) hold(h *held, c *check, found []Grant) {
	for i := range found {
		g := &found[i]
		if !c.gave(g) || !g.Until.After(j.deps.Now()) && !j.whole(g) {
			continue
		}
		known, ok := h.grants[c.Name]
		if ok && (known.IP == j.req.IP || g.IP != j.req.IP && known.Until.After(g.Until)) {
			continue
		}
		h.grants[c.Name], h.dues[c.Name] = *g, j.due(g)
	}
}

// gave says whether the grant is the check's.
func (c *check) gave(g *Grant) bool { return g.Check == c.Name && g.Realm == c.Realm }

func (j *judgement) running() bool { return j.req.Session != uuid.Nil }

// whole says whether the running session goes on by the grant until it ends itself.
func (j *judgement) whole(g *Grant) bool { return g.Whole && j.running() }

// spares says whether the check need not be asked at all.
func (h *held) spares(c *check) bool {
	_, ok := h.grants[c.Name]
	return ok && !h.dues[c.Name]
}

// due says whether the middleware wants to be asked about its grant again.
func (e *Engine) due(g *Grant) bool { return !g.Recheck.IsZero() && !g.Recheck.After(e.deps.Now()) }

// recent is the grant that an equal question brought a moment ago: whoever looked before it
// was kept and asks after that must not ask again.
func (e *Engine) recent(c *check, of For, h *held) (Grant, bool) {
	if of.Who.IsZero() || h.dues[c.Name] {
		return Grant{}, false
	}
	for _, g := range e.deps.Grants.Recent(of) {
		if c.gave(&g) && g.Until.After(e.deps.Now()) && !e.due(&g) {
			return g, true
		}
	}
	return Grant{}, false
}

// kept is what a grant says.
func (e *Engine) kept(g *Grant) said {
	left := g.Until.Sub(e.deps.Now())
	if !g.Recheck.IsZero() && g.Recheck.Before(g.Until) && !e.due(g) {
		left = g.Recheck.Sub(e.deps.Now())
	}
	return said{
		result: yes, kept: true, user: g.User, name: g.SessionName, sessions: g.Sessions, reach: g.Reach, duration: left,
		text: "granted at " + g.At.UTC().Format(time.DateTime) + "Z, holds until " + g.Until.UTC().Format(time.DateTime) + "Z",
	}
}

// lifetime is how long a yes is kept, 0 if it is not: by the middleware's word, else by the
// policy's or the kind's, never longer than any of them allows.
func (c *check) lifetime(a *middleware.Answer) time.Duration {
	d := a.Duration
	if d == 0 {
		d = c.Grant
	}
	if a.Grant > 0 && (d == 0 || d > a.Grant) {
		d = a.Grant
	}
	if c.GrantMax > 0 {
		d = min(d, c.GrantMax)
	}
	return d
}

// keep stores a yes before anybody hears of it. Who cannot be remembered is in the same case
// as who cannot be counted: he may watch, but the cluster would not know it the next time.
func (e *Engine) keep(ctx context.Context, end time.Time, c *check, of For, r *rule, a *middleware.Answer, s *said) {
	now := e.deps.Now()
	g := Grant{
		Check: c.Name, For: of, Realm: c.Realm, User: a.User, SessionName: a.SessionName, Sessions: a.Sessions, Reach: a.Reach,
		At: now, Until: now.Add(s.duration), Whole: a.WholeSession && c.GrantMax == 0,
	}
	if a.Recheck > 0 {
		g.Recheck = now.Add(a.Recheck)
	}
	// The yes was given, whoever still waits for it: it must not be lost with him.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(max(time.Until(end), keepAtLeast), keepAtMost))
	defer cancel()
	err := e.deps.Grants.Keep(ctx, g)
	switch {
	case err == nil:
		return
	case r.Uncounted != access.FailAllow:
		*s = said{result: unavailable, text: "it said yes, but that cannot be kept now; uncounted: deny"}
	default:
		s.text += "; that cannot be kept now; uncounted: allow"
	}
	e.deps.Log.WarnContext(ctx, "a grant cannot be kept", slog.String("check", c.Name), slog.Any("error", err))
}

// move stores a grant that was found anew: that of a running session goes along to its new
// address.
func (j *judgement) move(ctx context.Context, g Grant, to netip.Addr) Grant {
	if g.IP != to {
		g.From, g.IP = g.IP, to
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepAtMost)
	defer cancel()
	if err := j.deps.Grants.Keep(ctx, g); err != nil {
		// It is found at the old address the next time too.
		j.deps.Log.DebugContext(ctx, "a grant cannot be moved", slog.String("check", g.Check), slog.Any("error", err))
	}
	return g
}

// rechecked is what stands after a middleware was asked about its grant again: a yes renews
// it, silence changes nothing, and a no ends it, perhaps after a while.
func (j *judgement) rechecked(ctx context.Context, g Grant, s said) said {
	switch s.result {
	case yes:
		return s
	case no:
		until := g.Recheck.Add(s.grace)
		if until.Before(g.Until) {
			g.Until = until
			g = j.move(ctx, g, j.req.IP)
		}
		if !g.Until.After(j.deps.Now()) {
			return s
		}
		kept := j.kept(&g)
		kept.text = "it says no now; what it " + kept.text
		return kept
	default:
		kept := j.kept(&g)
		kept.text = "it could not be asked again; " + kept.text
		return kept
	}
}
