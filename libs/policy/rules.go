package policy

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/match"
)

func (c *compiler) rules(files []*fileRule) {
	c.snapshot.Rules = make([]*Rule, 0, len(files))
	for i, f := range files {
		if f != nil {
			c.snapshot.Rules = append(c.snapshot.Rules, c.rule(path{"streams", i}, i, f))
		}
	}
}

func (c *compiler) rule(at path, i int, f *fileRule) *Rule {
	d := c.snapshot.Defaults
	r := &Rule{
		Index: i, Line: c.doc.Problem("", at...).Line,
		When:             c.before(at.sub("when"), f.When),
		Own:              c.own(at.sub("rules"), f.Rules),
		Allow:            c.lists(at.sub("allow"), f.Allow),
		Deny:             c.lists(at.sub("deny"), f.Deny),
		Domains:          c.domains(at.sub("domains"), f.Domains),
		DenyEmptyReferer: f.DenyEmpty,
		OnDeny:           c.onDeny(at.sub("on_deny"), f.OnDeny),
		Lease:            c.duration(at.sub("lease"), f.Lease, 0, shortest, longLease),
		OnUnavailable:    c.failMode(at.sub("on_unavailable"), f.OnUnavailable, d.OnUnavailable),
		Grace:            c.duration(at.sub("grace"), f.Grace, d.Grace, 0, longGrace),
		GraceKnown:       c.duration(at.sub("grace_known"), f.GraceKnown, d.GraceKnown, 0, longGrace),
		name:             fmt.Sprintf("streams[%d] %q", i, f.Match),
	}
	glob, err := match.ParseGlob(f.Match)
	switch {
	case !c.doc.Has(at.sub("match")...):
		c.errorf(at.sub("match"), "", `is missing: write the streams that the rule is for, such as "news/*" or "**"`)
	case err != nil:
		c.errorf(at.sub("match"), "", "%s", err)
	}
	r.Match = glob
	if f.DenyEmpty && len(f.Domains) == 0 {
		c.errorf(at.sub("deny_empty_referer"), "", "has no meaning without domains")
	}
	c.auth(at.sub("auth"), r, f.Auth)
	r.Shadow = c.enforce(at.sub("enforce"), f.Enforce)
	r.Answer = c.answer(at.sub("answer"), f.Answer, r.Shadow)
	r.Limits = c.limits(at.sub("limit"), f.Limit)
	r.Archive = c.archive(at.sub("archive"), f.Archive)
	uncounted := access.FailAllow
	if r.OnUnavailable == access.FailDeny {
		uncounted = access.FailDeny
	}
	r.Uncounted = choice(c, at.sub("uncounted"), f.Uncounted, uncounted, access.FailDeny, access.FailAllow)
	r.Examples = c.examples(at.sub("examples"), f.Examples)
	return r
}

func (c *compiler) auth(at path, r *Rule, f *fileAuth) {
	if f == nil {
		c.errorf(at, "", "is missing; want %s", authForms)
		return
	}
	var names []string
	switch {
	case f.word == string(AuthAllow) || f.word == string(AuthDeny):
		r.Auth = AuthMode(f.word)
		return
	case f.word != "":
		r.Auth, names = AuthAny, []string{f.word}
	case len(f.choice.Any) > 0 && len(f.choice.All) > 0:
		c.errorf(at, "", "has any and all; want one of them")
		return
	case len(f.choice.Any) > 0:
		r.Auth, names, at = AuthAny, f.choice.Any, at.sub("any")
	case len(f.choice.All) > 0:
		r.Auth, names, at = AuthAll, f.choice.All, at.sub("all")
	default:
		c.errorf(at, "", "names no check; want %s", authForms)
		return
	}
	for i, name := range names {
		where := at
		if f.word == "" {
			where = at.sub(i)
		}
		if slices.Index(names, name) < i {
			c.errorf(where, "", "check %s stands twice", name)
		}
		if check := c.findCheck(where, name, f.word != ""); check != nil {
			r.Checks = append(r.Checks, check)
		}
	}
}

func (c *compiler) findCheck(at path, name string, word bool) *Check {
	if check, ok := c.snapshot.Checks[name]; ok {
		return check
	}
	if c.doc.Has("checks", name) {
		return nil // it is there and has problems of its own
	}
	known := c.doc.Keys("checks")
	all := known
	if word {
		all = append([]string{string(AuthAllow), string(AuthDeny)}, known...)
	}
	text := "no checks are defined"
	if len(known) > 0 {
		text = "there are " + strings.Join(known[:min(len(known), 20)], ", ")
	}
	c.errorf(at, config.Nearest(name, all), "no check is called %q; %s", name, text)
	return nil
}

// denials are the reasons that a viewer can be sent elsewhere for: all but those of an allow,
// and those of questions that no rule judges.
func denials() []string {
	var names []string
	for _, r := range access.Reasons() {
		switch r {
		case access.Granted, access.AllowRule, access.Client, access.Shadow, access.Grace, access.NoRule,
			access.UnknownNode, access.WrongSource, access.BadRequest, access.WrongEdge:
		default:
			names = append(names, string(r))
		}
	}
	return names
}

func (c *compiler) onDeny(at path, f map[string]string) map[access.Reason]string {
	if len(f) == 0 {
		return nil
	}
	known := denials()
	targets := make(map[access.Reason]string, len(f))
	for reason, target := range f {
		if reason != "*" && !slices.Contains(known, reason) {
			c.errorf(at.sub(reason), config.Nearest(reason, known), `%q is no reason of a denial; want "*", %s`, reason, oneOf(known))
		}
		if err := access.CheckAddress(target); err != nil {
			c.errorf(at.sub(reason), "", "%s", err)
		}
		targets[access.Reason(reason)] = target
	}
	return targets
}

func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && len(text) <= access.MaxPath && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		!strings.ContainsAny(text, " \t\r\n")
}
