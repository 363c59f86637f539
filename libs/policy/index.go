package policy

import "strings"

// index finds the first rule of thousands without asking each. Rules are filed
// under the text that their pattern begins and ends with; a stream can
// only match rules whose text it begins and ends with.
type index struct {
	rules    []*Rule
	literals map[string]int // first rule with this pattern, which has no star
	affixes  map[affix][]int
	// sizes are the lengths of the affixes that occur: the keys to look up.
	sizes []affixSize
}

type affix struct{ prefix, suffix string }

type affixSize struct{ prefix, suffix int }

func newIndex(rules []*Rule) *index {
	x := &index{rules: rules, literals: map[string]int{}, affixes: map[affix][]int{}}
	seen := map[affixSize]bool{}
	for i, r := range rules {
		prefix, suffix := r.Match.Affixes()
		if r.Match.Literal() {
			if _, ok := x.literals[prefix]; !ok {
				x.literals[prefix] = i
			}
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

// first is the number of the first rule that matches, -1 if none does.
func (x *index) first(stream string) int {
	best := len(x.rules)
	if i, ok := x.literals[stream]; ok {
		best = i
	}
	for _, size := range x.sizes {
		if size.prefix+size.suffix > len(stream) {
			continue
		}
		for _, i := range x.affixes[affix{stream[:size.prefix], stream[len(stream)-size.suffix:]}] {
			if i >= best {
				break
			}
			if x.rules[i].Match.Match(stream) {
				best = i
				break
			}
		}
	}
	if best == len(x.rules) {
		return -1
	}
	return best
}

// shadow is the number of an earlier rule that matches all that rule i could,
// -1 if none is found. It is exact where i is literal or the earlier pattern ends in its
// only star, `**`; other pairs count only if they are equal.
func (x *index) shadow(i int) int {
	glob := x.rules[i].Match
	if glob.Literal() {
		if first := x.first(glob.String()); first < i {
			return first
		}
		return -1
	}
	prefix, suffix := glob.Affixes()
	for _, j := range x.affixes[affix{prefix, suffix}] {
		if j < i && x.rules[j].Match.String() == glob.String() {
			return j
		}
	}
	for n := range len(prefix) + 1 {
		for _, j := range x.affixes[affix{prefix: prefix[:n]}] {
			if j < i && strings.TrimPrefix(x.rules[j].Match.String(), prefix[:n]) == "**" {
				return j
			}
		}
	}
	return -1
}
