package decide

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// lookUpTime is kept for, and bounds, one look-up of a last word.
const lookUpTime = 50 * time.Millisecond

// excusedAny is the end of `any` without a yes, where a check could not be asked:
// its fail mode may let the viewer in. A no of another check outweighs that (spec
// flussonic §5), except for whom the check that is away had let in itself: then the
// no is that of a system that never knew him, and it would end what `grace` promises.
func (j *judgement) excusedAny(ctx context.Context, answers []said) bool {
	refused := false
	for i := range answers {
		refused = refused || answers[i].result == no
	}
	for i := range answers {
		s := &answers[i]
		if s.result != unavailable {
			continue
		}
		if x, ok := j.excuse(ctx, s.check, refused); ok {
			j.allow(&j.verdict, j.req, x.reason, x.text, x.welcome)
			return true
		}
	}
	return false
}

// acceptAll is the end of `all` without a no: every check that could not be asked
// must be excused.
func (j *judgement) acceptAll(ctx context.Context, answers []said) {
	reason, text := access.Granted, "all that were asked accepted the viewer: "+named(answers)
	var w welcome
	for i := range answers {
		s := &answers[i]
		if s.result == yes {
			w.merge(j.welcome(s))
			j.accounts = append(j.accounts, j.as(s))
			if s.order != nil && reason == access.Granted {
				reason, text = access.Overridden, "check "+s.check.Name+": "+s.text
			}
			continue
		}
		x, ok := j.excuse(ctx, s.check, false)
		if !ok {
			j.verdict.Unavailable, j.verdict.Unknown = true, j.unknown
			j.verdict.deny(access.Unavailable, "check "+s.check.Name+" could not be asked", "")
			return
		}
		w.merge(x.welcome)
		j.accounts = append(j.accounts, j.as(&said{check: s.check, user: x.welcome.user}))
		// Grace knows the viewer, "allow" does not: the weaker reason stands.
		if reason != access.Unavailable {
			reason, text = x.reason, x.text
		}
	}
	j.allow(&j.verdict, j.req, reason, text, w)
}

// named are the checks that said yes.
func named(answers []said) string {
	var names []string
	for i := range answers {
		if answers[i].result == yes {
			names = append(names, "check "+answers[i].check.Name)
		}
	}
	return strings.Join(names, ", ")
}

// excused is why a viewer may go on although a check could not be asked.
type excused struct {
	reason  access.Reason
	text    string
	welcome welcome
}

// excuse applies the fail mode of a check that could not be asked. With refused
// only the check's own memory of the viewer counts.
func (j *judgement) excuse(ctx context.Context, c *check, refused bool) (excused, bool) {
	mode := c.OnUnavailable
	if mode == "" {
		mode = j.rule.OnUnavailable
	}
	x := excused{reason: access.Unavailable, welcome: welcome{realm: c.Realm, unavailable: true}}
	step := "fail mode " + c.Name
	switch {
	case mode == access.FailAllow && !refused:
		// Whoever it was: bans on his account hold in every mode, and his sessions are counted.
		word, _ := j.lastWord(ctx, c)
		x.welcome.user, x.welcome.name = word.User, word.SessionName
		x.welcome.sessions = j.rule.number(c, word.Sessions)
		x.text = "check " + c.Name + " could not be asked, and its fail mode allows"
		j.trail.add(step, yes, "allow")
		return x, true
	case mode != access.FailGrace:
		j.trail.add(step, no, string(mode))
		return x, false
	}
	running := j.req.Session != uuid.Nil
	word, known := j.lastWord(ctx, c)
	age := j.since(word.At)
	x.reason = access.Grace
	if known && word.Allowed {
		x.welcome.user, x.welcome.name = word.User, word.SessionName
		x.welcome.sessions = j.rule.number(c, word.Sessions)
	}
	switch {
	case known && word.Allowed && age <= j.rule.GraceKnown:
		x.text = "check " + c.Name + " could not be asked; it allowed this viewer before"
	case running && !refused && (!known || !word.Allowed || age <= j.rule.Grace):
		// A last word of no may have been about another stream: it does not end a
		// session that was let in. One of yes says for how long nobody could be asked.
		x.text = "check " + c.Name + " could not be asked; the session is running"
	case running && known && word.Allowed && age <= j.rule.Grace:
		x.text = "check " + c.Name + " could not be asked; it allowed this session before"
	default:
		j.unknown = true
		j.trail.add(step, no, "grace: the viewer is not known")
		return x, false
	}
	j.trail.add(step, yes, "grace")
	return x, true
}

// lastWord is what the check said last of the viewer; false if there is none, or it
// is out of reach too.
func (j *judgement) lastWord(ctx context.Context, c *check) (Word, bool) {
	who := j.who(c, j.req)
	if who.IsZero() {
		return Word{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	w, ok, err := j.deps.Known.Allowed(ctx, c.Name, who)
	if err != nil {
		j.deps.Log.WarnContext(ctx, "last word of a check cannot be looked up",
			slog.String("check", c.Name), slog.Any("error", err))
		return Word{}, false
	}
	if w.Realm != "" && w.Realm != c.Realm {
		return Word{}, false // it was said of another realm's user
	}
	return w, ok
}
