package policy

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"usher.internal/libs/config"
)

// Network is a named list of networks: given inline, or in a file.
type Network struct {
	Name     string
	Prefixes []netip.Prefix
	File     string // absolute path, "" for a list that is given inline
}

// Networks say where an address may be: in a prefix, or in a list of Snapshot.Networks.
// The zero value holds no address.
type Networks struct {
	Prefixes []netip.Prefix
	Names    []string
}

// Empty says whether no network is given.
func (n *Networks) Empty() bool { return len(n.Prefixes)+len(n.Names) == 0 }

// fileNetwork is a list, or the file that holds it.
type fileNetwork struct {
	list []config.Prefix
	from struct {
		File string `yaml:"file"`
	}
}

// Shape implements config.Shaper.
func (n *fileNetwork) Shape(kind config.Kind) any {
	switch kind {
	case config.List:
		return &n.list
	case config.Map:
		return &n.from
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (n *fileNetwork) Wants() string {
	return "a list such as [10.0.0.0/8], or {file: /etc/usher/office.txt}"
}

// A network's name can stand in an expression, as networks.NAME.
var (
	networkName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	notNames    = []string{"in", "true", "false", "null"}
)

func (c *compiler) networks(files map[string]*fileNetwork) {
	c.snapshot.Networks = make(map[string]*Network, len(files))
	for _, name := range c.doc.Keys("networks") {
		f := files[name]
		if f == nil {
			continue
		}
		at := path{"networks", name}
		if !networkName.MatchString(name) || slices.Contains(notNames, name) {
			meant := strings.ReplaceAll(name, "-", "_")
			if meant == name {
				meant = ""
			}
			c.errorf(at, meant, "%q is no name of a network; want letters, digits and _, not beginning with a digit: expressions write networks.NAME", name)
		}
		n := &Network{Name: name, Prefixes: prefixes(f.list), File: f.from.File}
		if f.list == nil && !filepath.IsAbs(n.File) {
			c.errorf(at.sub("file"), "", "want an absolute path, such as /etc/usher/%s.txt", name)
		}
		c.snapshot.Networks[name] = n
	}
}

// within compiles a list of prefixes and names of networks.
func (c *compiler) within(at path, words []string) Networks {
	var n Networks
	for i, word := range words {
		if p, err := config.ParsePrefix(word); err == nil {
			n.Prefixes = append(n.Prefixes, p)
			continue
		}
		known := c.doc.Keys("networks")
		if slices.Contains(known, word) {
			n.Names = append(n.Names, word)
			continue
		}
		text := "no networks are defined"
		if len(known) > 0 {
			text = "networks are " + strings.Join(known[:min(len(known), 20)], ", ")
		}
		c.errorf(at.sub(i), config.Nearest(word, known), "%q is neither a network's name nor an address or prefix; %s", word, text)
	}
	return n
}
