package decide

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// ask gives a middleware's word on the question: by its grant, or by asking it.
func (j *judgement) ask(ctx context.Context, c *check, h *held) (s said) {
	began := time.Now()
	defer func() { j.ended(ctx, c, &s, began, recover()) }()
	g, ok := h.grants[c.Name]
	if ok && !j.due(&g) {
		if g.IP != j.req.IP {
			g = j.move(ctx, g, j.req.IP)
		}
		s = j.kept(&g)
		if j.whole(&g) {
			s.duration, s.text = 0, "granted at "+g.At.UTC().Format(time.DateTime)+"Z for the whole session"
		}
		return s
	}
	s = j.share(ctx, c, h)
	switch {
	case ok:
		return j.rechecked(ctx, g, s)
	case s.result == no && h.blind && j.req.Session != uuid.Nil:
		// A token that may be asked about only once is refused the second time. The session that
		// it opened goes on while its grant cannot be looked up, as all known sessions do.
		return said{result: unavailable, text: "it said no, but whether it said yes before cannot be looked up now"}
	}
	return s
}

// share asks the middleware, together with whoever has the same question now.
func (j *judgement) share(ctx context.Context, c *check, h *held) said {
	e, req, rule, of := j.Engine, *j.req, j.rule, h.of[c] // the flight may outlive the judgement
	end, bounded := ctx.Deadline()
	if !bounded {
		end = time.Now().Add(time.Minute)
	}
	s, err := e.flights.Do(ctx, c.flight(&req, of, h.dues[c.Name]), c.patience(), func(ctx context.Context) (s said, err error) {
		began := time.Now()
		defer func() {
			if p := recover(); p != nil {
				e.panicked(ctx, c, p)
				s, err = said{result: unavailable, text: "the check failed inside"}, nil
			}
			if !s.kept && s.result != notNeeded {
				e.deps.Asked(Asking{Check: c.Check, Result: s.result, Text: s.text, Open: s.open, Took: time.Since(began)})
			}
		}()
		if g, ok := e.recent(c, of, h); ok {
			return e.kept(&g), nil
		}
		s, a := e.call(ctx, c, &req)
		s.took = time.Since(began)
		if s.result == yes && !of.Who.IsZero() && s.duration > 0 {
			e.keep(ctx, end, c, of, rule, &a, &s)
		}
		return s, nil
	})
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return said{result: notNeeded}
	case err != nil:
		return said{result: unavailable, text: "it did not answer in time"}
	}
	return s
}

// patience bounds what askers share. The middleware has its own timeout.
func (c *check) patience() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout + keepAtMost
	}
	return time.Minute
}

// flight names questions that one answer serves: the same to the upstream, and for the same
// grant.
func (c *check) flight(req *access.Request, of For, due bool) string {
	key := req.Query
	if k, ok := c.middleware.(middleware.Keyed); ok {
		key = k.Key(req)
	}
	return fmt.Sprintf("%s/%s/%d:%s/%s/%t/%s", c.Name, of.Who, len(of.Stream), of.Stream, of.IP, due, key)
}

// call puts the question to the upstream and remembers its word.
func (e *Engine) call(ctx context.Context, c *check, req *access.Request) (said, middleware.Answer) {
	a, err := e.upstream(ctx, c, req)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return said{result: notNeeded}, a
	case err != nil:
		return said{result: unavailable, text: err.Error(), open: errors.Is(err, middleware.ErrOpen)}, a
	}
	if who := e.who(c, req); !who.IsZero() {
		e.deps.Known.Remember(c.Name, who, Word{
			Allowed: a.Allowed, Realm: c.Realm, User: a.User, SessionName: a.SessionName, Sessions: a.Sessions, At: e.deps.Now(),
		})
	}
	if !a.Allowed {
		return said{result: no, reason: access.Refused, text: a.Text, location: a.Location, grace: a.Grace}, a
	}
	return said{
		result: yes, text: a.Text, user: a.User, name: a.SessionName, sessions: a.Sessions, reach: a.Reach, duration: c.lifetime(&a),
	}, a
}

// panicked logs a panic. Neither the value nor the arguments are logged: they may hold the token.
func (e *Engine) panicked(ctx context.Context, c *check, p any) {
	e.deps.Log.ErrorContext(ctx, "check panicked", slog.String("check", c.Name),
		slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
}
