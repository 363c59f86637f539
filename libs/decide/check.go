package decide

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/middleware"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
)

// check is a configured check, ready to be asked: one of verifier, accounts and
// middleware is set.
type check struct {
	*policy.Check
	verifier   token.Verifier
	accounts   *accounts
	middleware middleware.Middleware
	stop       func()
	area       area // where the viewers are that it is for
}

// Results of a check, as they stand in steps and metrics.
const (
	yes         = "allow"
	no          = "deny"
	notMine     = "not mine"
	skipped     = "no token"
	unavailable = "unavailable"
	notNeeded   = "not needed"
	notFor      = "not for this"
	byGrant     = "grant" // in metrics: a yes without asking
)

// Results as Asking has them.
const (
	Yes         = yes
	No          = no
	Unavailable = unavailable
)

// said is how a check ended.
type said struct {
	check  *check
	result string
	reason access.Reason // of a no
	text   string
	took   time.Duration
	// What a yes named.
	user, device, name string
	bearer             string
	sessions           int
	reach              *access.Reach        // how far into the archive, nil if it did not say
	duration           time.Duration        // how long the yes holds, 0 if it did not say
	expires            time.Time            // a lease ends by then; zero: it did not say
	location           string               // where a no sends the viewer
	open               bool                 // the breaker kept it from being asked
	kept               bool                 // a grant said so: nobody was asked
	order              *directive.Directive // it said so, not the check; nil: none
	grace              time.Duration        // of a no: how long a yes that was to be asked about again goes on
}

// verify asks a verifier, or looks among the operator's own subscribers.
func (j *judgement) verify(ctx context.Context, c *check, q *token.Question) (s said) {
	began := time.Now()
	defer func() {
		j.ended(ctx, c, &s, began, recover())
		if s.result == yes || s.result == no || s.result == unavailable {
			j.deps.Asked(Asking{Check: c.Check, Result: s.result, Text: s.text, Took: s.took})
		}
	}()
	if c.accounts != nil {
		return j.account(ctx, c)
	}
	if q.Token == "" && !c.InAddress {
		return said{result: skipped}
	}
	id, err := c.verifier.Verify(ctx, q)
	var d *token.Denial
	switch {
	case errors.Is(err, token.ErrNotMine) && q.Token == "":
		return said{result: skipped, text: "the address carries none either"}
	case errors.Is(err, token.ErrNotMine):
		return said{result: notMine, text: "the token has another form"}
	case errors.As(err, &d):
		return said{result: no, reason: d.Reason, text: d.Text}
	case errors.Is(err, token.ErrUnavailable):
		return said{result: unavailable, text: token.ErrUnavailable.Error()}
	case err != nil:
		j.deps.Log.WarnContext(ctx, "verifier failed", slog.String("check", c.Name), slog.Any("error", err))
		return said{result: unavailable, text: "the verifier failed"}
	}
	s = said{result: yes, user: id.User, device: id.Device, bearer: id.Bearer, sessions: id.Sessions, expires: id.Expires}
	if id.Claim != nil {
		j.claim(ctx, id.Claim, &s)
	}
	return s
}

// claim holds a part of the token that the viewer could rewrite against the first
// value that the cluster saw. Who cannot be held against it may watch, for his
// token is good; whom to count him for is in doubt, so that the rule's word on
// viewers who cannot be counted decides.
func (j *judgement) claim(ctx context.Context, c *token.Claim, s *said) {
	first, err := j.deps.Claims.First(ctx, j.deps.Keyer.Key("claim", c.Name), c.Value)
	switch {
	case err != nil && j.rule.Uncounted != access.FailAllow:
		*s = said{result: unavailable, text: "whether the token was seen with another user cannot be told now"}
	case err != nil:
		s.text = "whether the token was seen with another user cannot be told now; uncounted: allow"
	case first != c.Value:
		*s = said{result: no, reason: access.BadToken, text: "the token was seen before with another user: its user or salt was rewritten"}
	}
}

// ended completes what a check said; a panic in it costs this check alone.
func (e *Engine) ended(ctx context.Context, c *check, s *said, began time.Time, panicked any) {
	if panicked != nil {
		e.panicked(ctx, c, panicked)
		*s = said{result: unavailable, text: "the check failed inside"}
	}
	s.check, s.took = c, time.Since(began)
	result := s.result
	if s.kept {
		result = byGrant
	}
	e.deps.Observe(c.Name, result, s.took)
}

// purpose keeps apart what a middleware that is told of the archive said of it and of the live stream.
func (c *check) purpose(req *access.Request) string {
	if c.Type == "flussonic" && req.Archive.Kind != access.Live {
		return "archive"
	}
	return ""
}

// who stands for the viewer in the memory of the check: what the middleware knows him by, else
// his token, else his query; zero if he brought nothing of it.
func (e *Engine) who(c *check, req *access.Request) access.Key {
	identity := req.Token
	if i, ok := c.middleware.(middleware.Identifier); ok {
		identity = i.Identity(req)
	} else if identity == "" {
		identity = req.Query
	}
	switch purpose := c.purpose(req); {
	case identity == "":
		return access.Key{}
	case purpose != "":
		return e.deps.Keyer.Key("purpose", purpose, identity)
	case identity == req.Token:
		return e.deps.Keyer.Fingerprint(identity)
	}
	return e.deps.Keyer.Key("query", identity)
}
