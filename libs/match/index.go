package match

import "strings"

// Index finds the globs that a name fits, in their order, without asking each of
// thousands. Globs are filed under the text that they begin and end with; a name can only
// fit those whose text it begins and ends with. It is immutable and safe for concurrent use.
type Index struct {
	globs    []*Glob
	literals map[string][]int // globs without a star, in order
	affixes  map[affix][]int
	// sizes are the lengths of the affixes that occur: the keys to look up.
	sizes []affixSize
}

type affix struct{ prefix, suffix string }

type affixSize struct{ prefix, suffix int }

// NewIndex files the globs. A glob may stand several times.
func NewIndex(globs []*Glob) *Index {
	x := &Index{globs: globs, literals: map[string][]int{}, affixes: map[affix][]int{}}
	seen := map[affixSize]bool{}
	for i, g := range globs {
		prefix, suffix := g.Affixes()
		if g.Literal() {
			x.literals[prefix] = append(x.literals[prefix], i)
			continue
		}
		x.affixes[affix{prefix, suffix}] = append(x.affixes[affix{prefix, suffix}], i)
		if size := (affixSize{len(prefix), len(suffix)}); !seen[size] {
			seen[size] = true
			x.sizes = append(x.sizes, size)
		}
	}
	return x
}

// First is the number of the first glob that name fits, -1 if it fits none.
func (x *Index) First(name string) int { return x.Next(name, -1) }

// Next is the number of the first glob behind number after that name fits, -1 if there
// is none.
func (x *Index) Next(name string, after int) int {
	best := len(x.globs)
	for _, i := range x.literals[name] {
		if i > after {
			best = i
			break
		}
	}
	for _, size := range x.sizes {
		if size.prefix+size.suffix > len(name) {
			continue
		}
		for _, i := range x.affixes[affix{name[:size.prefix], name[len(name)-size.suffix:]}] {
			if i >= best {
				break
			}
			if i > after && x.globs[i].Match(name) {
				best = i
				break
			}
		}
	}
	if best == len(x.globs) {
		return -1
	}
	return best
}

// Shadows is the number of the first glob before number i that fits all that glob i fits and
// that counts, -1 if none is found. It is exact where i is literal or the earlier glob ends
// in its only star, `**`; other pairs count only if they are equal.
func (x *Index) Shadows(i int, counts func(int) bool) int {
	glob := x.globs[i]
	if glob.Literal() {
		for j := x.First(glob.String()); j >= 0 && j < i; j = x.Next(glob.String(), j) {
			if counts(j) {
				return j
			}
		}
		return -1
	}
	prefix, suffix := glob.Affixes()
	for _, j := range x.affixes[affix{prefix, suffix}] {
		if j < i && x.globs[j].String() == glob.String() && counts(j) {
			return j
		}
	}
	for n := range len(prefix) + 1 {
		for _, j := range x.affixes[affix{prefix: prefix[:n]}] {
			if j < i && strings.TrimPrefix(x.globs[j].String(), prefix[:n]) == "**" && counts(j) {
				return j
			}
		}
	}
	return -1
}
