package decide

import (
	"context"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware/aliaser"
	"usher.internal/libs/middleware/upstream"
	"usher.internal/libs/policy"
)

// aliasing tells which stream hides behind a name; *aliaser.Aliaser is one.
type aliasing interface {
	// Stream is "" if the name leads nowhere; an error means that nobody can tell.
	Stream(ctx context.Context, name string) (string, error)
	Close()
}

// itself is the aliasing of examples, whose names stand for streams.
type itself struct{}

// Stream implements aliasing.
func (itself) Stream(_ context.Context, name string) (string, error) { return name, nil }

// Close implements aliasing.
func (itself) Close() {}

// openAliaser makes the policy's aliaser ready, nil if there is none.
func openAliaser(a *policy.Aliases, d *Deps) (aliasing, error) {
	if a == nil || a.HTTP == nil {
		return nil, nil
	}
	client, stop := d.HTTP, func() {}
	if client == nil {
		t := upstream.NewTransport(a.HTTP.Timeout, 16, d.Now)
		client, stop = t, t.Close
	}
	own, err := aliaser.New(aliaser.Options{URL: a.HTTP.URL, Timeout: a.HTTP.Timeout, Cache: a.HTTP.Cache}, client, d.Now, d.Log)
	if err != nil {
		stop()
		return nil, err
	}
	return pooled{own, stop}, nil
}

// pooled is an aliaser with its connections.
type pooled struct {
	*aliaser.Aliaser
	stop func()
}

// Close implements aliasing.
func (p pooled) Close() {
	p.Aliaser.Close()
	p.stop()
}

// alias puts the stream's own name in the place of the one that the viewer asked for: all that
// follows, and what is stored, goes by it.
func (j *judgement) alias(ctx context.Context) bool {
	a := j.snapshot.Aliases
	if a == nil {
		return false
	}
	asked := j.req.Stream
	if stream, ok := a.Names.Stream(asked); ok {
		j.named(stream, "alias")
		return false
	}
	switch {
	case a.Strict && a.Names.Hides(asked):
		return j.nameless("strict: " + asked + " is a stream's own name, which viewers may not ask for")
	case j.aliaser == nil:
		return false
	}
	return j.askAlias(ctx, asked)
}

// askAlias asks the aliaser about a name that the policy does not know.
func (j *judgement) askAlias(ctx context.Context, asked string) bool {
	ctx, cancel := keepTime(ctx)
	defer cancel()
	stream, err := j.aliaser.Stream(ctx, asked)
	switch {
	case err != nil && j.req.Session != uuid.Nil && j.req.Known != "":
		j.named(j.req.Known, "as when the session opened; the aliaser could not be asked")
		return false
	case err != nil:
		j.trail.add("alias", unavailable, err.Error())
		j.verdict.Unavailable, j.verdict.Unknown = true, true
		j.astray(access.Unavailable, "the aliaser could not be asked which stream "+asked+" leads to")
		return true
	case stream == "":
		return j.nameless("the aliaser knows no stream behind " + asked)
	case stream == asked && j.snapshot.Aliases.Strict:
		return j.nameless("strict: the aliaser says that " + asked + " is the stream's own name, which viewers may not ask for")
	}
	j.named(stream, "the aliaser's answer")
	return false
}

// named goes on under the stream's own name. The caller's request stays as it was.
func (j *judgement) named(stream, how string) {
	asked := j.req.Stream
	if stream == asked {
		j.trail.add("alias", "none", "")
		return
	}
	own := *j.req
	own.Stream, own.Requested = stream, asked
	j.req, j.verdict.Stream = &own, stream
	j.trail.add("alias", "match", asked+" is "+stream+" ("+how+")")
}

// nameless refuses a name that leads nowhere.
func (j *judgement) nameless(why string) bool {
	j.trail.add("alias", no, why)
	j.astray(access.NoAlias, why)
	return true
}

// astray denies before a rule was found: where the viewer is sent, the rule says under which
// the name that he asked for would come.
func (j *judgement) astray(reason access.Reason, text string) {
	if r := j.snapshot.Rule(j.req.Stream); r != nil {
		j.verdict.targets = r.OnDeny
	}
	j.verdict.deny(reason, text, "")
}
