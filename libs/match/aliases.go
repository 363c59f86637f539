package match

import (
	"errors"
	"fmt"
	"strings"
)

// maxStream is the longest name of a stream in bytes (access.MaxName).
const maxStream = 256

// below ends an alias that stands for everything under a name.
const below = "/**"

// Aliases lead from the names that viewers ask for to those that streams have. The zero
// value leads nowhere.
type Aliases struct {
	names map[string]string
	trees map[string]string // of `a/**: b/**`, without what they end in
	// targets and roots are where names and trees lead.
	targets, roots map[string]struct{}
}

// NewAliases takes name: name, or prefix/**: prefix/**. The error names an alias that CheckAlias
// refuses.
func NewAliases(list map[string]string) (*Aliases, error) {
	a := &Aliases{
		names: map[string]string{}, trees: map[string]string{},
		targets: map[string]struct{}{}, roots: map[string]struct{}{},
	}
	for alias, stream := range list {
		if err := CheckAlias(alias, stream); err != nil {
			return nil, fmt.Errorf("alias %q: %w", alias, err)
		}
		from, tree := strings.CutSuffix(alias, below)
		to := strings.TrimSuffix(stream, below)
		if tree {
			a.trees[from], a.roots[to] = to, struct{}{}
			continue
		}
		a.names[from], a.targets[to] = to, struct{}{}
	}
	return a, nil
}

// CheckAlias says what is wrong with an alias.
func CheckAlias(alias, stream string) error {
	from, tree := strings.CutSuffix(alias, below)
	to, same := strings.CutSuffix(stream, below)
	for _, name := range []string{from, to} {
		if err := checkAlias(name); err != nil {
			return err
		}
	}
	if tree != same {
		return errors.New("both sides must end in /**, or neither")
	}
	return nil
}

func checkAlias(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case len(name) > maxStream:
		return fmt.Errorf("a name is longer than %d bytes", maxStream)
	case strings.Contains(name, "*"):
		return errors.New("only a whole last element may be a star: old/**: new/**")
	case strings.HasPrefix(name, "/"):
		return errors.New("a name begins with a slash, which no stream's name does")
	case !plain(name):
		return errors.New("a name holds control characters or is not UTF-8")
	}
	return nil
}

// Stream is the stream's own name; false where the name is no alias. A name of its own goes
// before a tree, and of trees the deepest.
func (a *Aliases) Stream(name string) (string, bool) {
	if to, ok := a.names[name]; ok {
		return to, true
	}
	if at := deepest(a.trees, name); at > 0 {
		to := a.trees[name[:at]] + name[at:]
		return to, len(to) <= maxStream
	}
	return "", false
}

// Hides says whether a name is one that aliases lead to, which `strict` keeps from viewers.
func (a *Aliases) Hides(name string) bool {
	_, target := a.targets[name]
	return target || deepest(a.roots, name) > 0
}

// deepest is where the longest tree that holds the name ends, 0 if none does.
func deepest[V any](trees map[string]V, name string) int {
	if len(trees) == 0 {
		return 0
	}
	for at := strings.LastIndexByte(name, '/'); at > 0; at = strings.LastIndexByte(name[:at], '/') {
		if _, ok := trees[name[:at]]; ok {
			return at
		}
	}
	return 0
}

// Names are all aliases as NewAliases takes them.
func (a *Aliases) Names() map[string]string {
	list := make(map[string]string, len(a.names)+len(a.trees))
	for from, to := range a.names {
		list[from] = to
	}
	for from, to := range a.trees {
		list[from+below] = to + below
	}
	return list
}
