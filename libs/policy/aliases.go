package policy

import (
	"strings"
	"time"

	"usher.internal/libs/match"
)

// Aliases lead from the names that viewers ask for to those that streams have.
type Aliases struct {
	Names *match.Aliases
	// HTTP is asked about names that Names does not hold; nil: those are the streams' own.
	HTTP *Aliaser
	// Strict refuses the names that aliases lead to where viewers ask for them directly.
	Strict bool
}

// Aliaser is the operator's own service that knows streams by other names.
type Aliaser struct {
	URL     string
	Timeout time.Duration
	// Cache is how long an answer counts without asking again.
	Cache time.Duration
}

// Bounds and defaults of aliases.
const (
	maxAliases     = 20_000 // of which each edge holds a copy
	aliaserTimeout = 300 * time.Millisecond
	aliaserCache   = time.Minute
)

func (c *compiler) aliases(f *fileAliases) {
	if f == nil {
		return
	}
	at := path{"aliases"}
	if len(f.Map) > maxAliases {
		c.errorf(at.sub("map"), "", "has %d names, at most %d are taken; let aliases.http tell them", len(f.Map), maxAliases)
		return
	}
	for _, alias := range c.doc.Keys("aliases", "map") {
		if err := match.CheckAlias(alias, f.Map[alias]); err != nil {
			c.errorf(at.sub("map", alias), "", "%s", err)
		}
	}
	names, _ := match.NewAliases(f.Map) // nil where one was refused
	a := &Aliases{Names: names, Strict: f.Strict}
	if f.HTTP != nil {
		a.HTTP = c.aliaser(at.sub("http"), f.HTTP)
	}
	c.snapshot.Aliases = a
}

func (c *compiler) aliaser(at path, f *fileAliaser) *Aliaser {
	switch {
	case f.URL == "":
		c.errorf(at.sub("url"), "", "is missing: write the address that is asked with ?name=")
	case !isWebURL(f.URL) || strings.ContainsAny(f.URL, "@#"):
		c.errorf(at.sub("url"), "", "want http://host/path or https://host/path, without user, password and fragment")
	}
	return &Aliaser{
		URL:     f.URL,
		Timeout: c.duration(at.sub("timeout"), f.Timeout, aliaserTimeout, shortest/10, longBudget),
		Cache:   c.duration(at.sub("cache"), f.Cache, aliaserCache, 0, day),
	}
}
