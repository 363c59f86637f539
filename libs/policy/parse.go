package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/condition"
	"usher.internal/libs/config"
)

// Version of the policy file that is read.
const Version = 1

// DefaultRealm holds the users of checks that name no realm.
const DefaultRealm = access.DefaultRealm

// maxReported bounds problems, and warnings, that are reported at once.
const maxReported = 100

// Parse reads a policy file, checks it strictly and compiles it. kinds are the
// types of checks that it may name. The error is config.Problems: all that is
// wrong, each with its place; then there is no Snapshot. What is only worth a
// warning stands in Snapshot.Warnings.
func Parse(name string, data []byte, kinds []Kind) (*Snapshot, error) {
	doc, err := config.Parse(name, data)
	if err != nil {
		return nil, err
	}
	var f file
	c := &compiler{doc: doc, kinds: kinds, snapshot: &Snapshot{Source: string(data)}}
	c.malformed = doc.Decode(&f)
	c.compile(&f)
	problems := slices.Concat(c.malformed, c.problems)
	problems.Sort()
	if err := problems.Err(); err != nil {
		return nil, err
	}
	c.warnings.Sort()
	c.snapshot.Warnings = c.warnings
	return c.snapshot, nil
}

// compiler turns the decoded file into a snapshot and collects what is wrong.
type compiler struct {
	doc       *config.Document
	kinds     []Kind
	snapshot  *Snapshot
	malformed config.Problems // what did not decode
	problems  config.Problems
	warnings  config.Problems
	language  *condition.Language // of expressions; made when the first one is met
	lost      bool                // too many problems
}

// path leads to a value: keys and indexes.
type path []any

func (p path) sub(steps ...any) path { return append(p[:len(p):len(p)], steps...) }

func (c *compiler) compile(f *file) {
	switch {
	case f.Version == nil:
		c.errorf(path{"version"}, "", "is missing: write version: %d", Version)
	case *f.Version != Version:
		c.errorf(path{"version"}, "", "is %d, but this usher reads version %d", *f.Version, Version)
	}
	c.defaults(f.Defaults)
	c.retention(f.Retention)
	c.networks(f.Networks)
	c.nodes(f.Nodes)
	c.checks(f.Checks)
	c.answers(f.Nodes)
	c.aliases(f.Aliases)
	c.clients(f.Clients)
	c.snapshot.Own = c.own(path{"rules"}, f.Rules)
	c.rules(f.Streams)
	c.counts()
	if len(c.problems)+len(c.malformed) == 0 {
		c.warn()
		c.snapshot.index = indexOf(c.snapshot.Rules)
		c.digests()
	}
}

// errorf reports what is wrong at a place, unless the map there did not decode:
// what it lacks may just be misspelt.
func (c *compiler) errorf(at path, suggestion, format string, args ...any) {
	if c.lost {
		return
	}
	p := c.doc.Problem("", at...)
	if slices.ContainsFunc(c.malformed, func(m Problem) bool { return related(m.Path, p.Path) }) {
		return
	}
	p.Message = sentence(p.Path, fmt.Sprintf(format, args...))
	p.Suggestion = suggestion
	if len(c.problems) == maxReported {
		p.Message, p.Suggestion, c.lost = "there are more problems from here on", "", true
	}
	c.problems = append(c.problems, p)
}

// related says whether two places are in one map or inside each other.
func related(a, b string) bool {
	return parent(a) == parent(b) || inside(a, b) || inside(b, a)
}

func parent(p string) string { return p[:max(strings.LastIndexAny(p, ".["), 0)] }

func inside(p, outer string) bool {
	rest, ok := strings.CutPrefix(p, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (c *compiler) warnf(at path, format string, args ...any) {
	if len(c.warnings) > maxReported {
		return
	}
	p := c.doc.Problem("", at...)
	p.Warning = true
	p.Message = sentence(p.Path, fmt.Sprintf(format, args...))
	if len(c.warnings) == maxReported {
		p.Message = "there are more warnings"
	}
	c.warnings = append(c.warnings, p)
}

// sentence puts the place before what is said of it.
func sentence(place, text string) string {
	verb, _, _ := strings.Cut(text, " ")
	if slices.Contains([]string{"is", "has", "names", "counts"}, verb) {
		return place + " " + text
	}
	return place + ": " + text
}

// choice checks that a word is one of those that mean something; "" gives def.
func choice[T ~string](c *compiler, at path, word string, def T, known ...T) T {
	if word == "" && !c.doc.Has(at...) {
		return def
	}
	if slices.Contains(known, T(word)) {
		return T(word)
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	c.errorf(at, config.Nearest(word, names), "%q is not known; want %s", word, oneOf(names))
	return def
}

func (c *compiler) failMode(at path, word string, def access.FailMode) access.FailMode {
	return choice(c, at, word, def, access.FailDeny, access.FailAllow, access.FailGrace)
}

// duration checks that a time is within bounds; nil gives def.
func (c *compiler) duration(at path, d *config.Duration, def, least, most time.Duration) time.Duration {
	if d == nil {
		return def
	}
	if v := d.Duration(); v < least || v > most {
		c.errorf(at, "", "%s is out of bounds; want %s to %s", d, config.Duration(least), config.Duration(most))
		return def
	}
	return d.Duration()
}

// Bounds of times in a policy.
const (
	shortest   = 100 * time.Millisecond
	day        = 24 * time.Hour
	longLease  = day
	longGrace  = 30 * day
	longGrant  = 30 * day
	longHold   = 7 * day
	longBudget = time.Minute
	longKeep   = 3650 * day
)

func (c *compiler) defaults(f fileDefaults) {
	at := path{"defaults"}
	c.snapshot.Defaults = Defaults{
		Lease:         c.duration(at.sub("lease"), f.Lease, 180*time.Second, shortest, longLease),
		Idle:          c.duration(at.sub("idle"), f.Idle, 60*time.Second, shortest, longLease),
		OnUnavailable: c.failMode(at.sub("on_unavailable"), f.OnUnavailable, access.FailGrace),
		Grace:         c.duration(at.sub("grace"), f.Grace, 12*time.Hour, 0, longGrace),
		GraceKnown:    c.duration(at.sub("grace_known"), f.GraceKnown, 24*time.Hour, 0, longGrace),
	}
}

func (c *compiler) retention(f fileRetention) {
	at, d := path{"retention"}, DefaultRetention()
	r := Retention{
		Steps:     c.duration(at.sub("steps"), f.Steps, d.Steps, time.Hour, longKeep),
		Decisions: c.duration(at.sub("decisions"), f.Decisions, d.Decisions, day, longKeep),
		Sessions:  c.duration(at.sub("sessions"), f.Sessions, d.Sessions, day, longKeep),
		Usage:     c.duration(at.sub("usage"), f.Usage, d.Usage, day, longKeep),
		Grants:    c.duration(at.sub("grants"), f.Grants, d.Grants, day, longKeep),
		Addresses: c.duration(at.sub("addresses"), f.Addresses, d.Addresses, 0, longKeep),
	}
	if r.Addresses > 0 && r.Addresses < 3*day {
		c.errorf(at.sub("addresses"), "", "%s is too short: rows still come late for 3d; 0s keeps addresses whole", config.Duration(r.Addresses))
	}
	if r.Grants < c.snapshot.Defaults.GraceKnown {
		c.errorf(at.sub("grants"), "", "%s is shorter than grace_known, %s: grace would not know who was let in",
			config.Duration(r.Grants), config.Duration(c.snapshot.Defaults.GraceKnown))
	}
	if f.Steps == nil {
		r.Steps = min(r.Steps, r.Decisions)
	}
	if r.Steps > r.Decisions {
		c.errorf(at.sub("steps"), "", "%s is longer than decisions, %s, and a row's steps go with the row",
			config.Duration(r.Steps), config.Duration(r.Decisions))
	}
	c.snapshot.Retention = r
}

// oneOf lists words for a message: a, b or c.
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// name checks a name that the operator gives.
func (c *compiler) name(at path, name string) {
	if !plainName.MatchString(name) {
		c.errorf(at, "", "%q is no name; want 1 to 64 of letters, digits, _, - and dots, not beginning with a dot", name)
	}
}
