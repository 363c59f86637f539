package condition

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Index finds, of many expressions, those that may hold for a question: filed under what must
// be so for them to hold, and all that cannot be filed. It is immutable and safe for
// concurrent use.
type Index struct {
	equal    [slotCount]map[string][]int32
	slots    []slot // those of equal that are used
	begin    []beginnings
	prefixes *bart.Table[[]int32]
	named    []named
	rest     []int32 // filed under nothing
}

// beginnings are expressions that want a variable to begin with a text, by that text.
type beginnings struct {
	slot  slot
	sizes []int // of the texts
	texts map[string][]int32
}

// named are expressions that want the address to be in one list.
type named struct {
	list  string
	exprs []int32
}

// NewIndex files the expressions; their numbers are their places in the list.
func NewIndex(exprs []*Expr) *Index {
	x := &Index{}
	often := map[key]int{}
	for _, e := range exprs {
		for _, set := range e.keys {
			for _, k := range set {
				often[k]++
			}
		}
	}
	for i, e := range exprs {
		set := rarest(e.keys, often)
		if set == nil {
			x.rest = append(x.rest, int32(i))
		}
		for _, k := range set {
			x.file(k, int32(i))
		}
	}
	return x
}

// rarest is the set whose keys the fewest expressions share: a rule for one stream on one
// node is filed under the stream.
func rarest(sets [][]key, often map[key]int) []key {
	var best []key
	least := 0
	for _, set := range sets {
		n := 0
		for _, k := range set {
			n += often[k]
		}
		if best == nil || n < least {
			best, least = set, n
		}
	}
	return best
}

func (x *Index) file(k key, i int32) {
	switch k.kind {
	case equals:
		if x.equal[k.slot] == nil {
			x.equal[k.slot] = map[string][]int32{}
			x.slots = append(x.slots, k.slot)
		}
		x.equal[k.slot][k.text] = append(x.equal[k.slot][k.text], i)
	case begins:
		at := slices.IndexFunc(x.begin, func(b beginnings) bool { return b.slot == k.slot })
		if at < 0 {
			at = len(x.begin)
			x.begin = append(x.begin, beginnings{slot: k.slot, texts: map[string][]int32{}})
		}
		b := &x.begin[at]
		if !slices.Contains(b.sizes, len(k.text)) {
			b.sizes = append(b.sizes, len(k.text))
		}
		b.texts[k.text] = append(b.texts[k.text], i)
	case inPrefix:
		if x.prefixes == nil {
			x.prefixes = new(bart.Table[[]int32])
		}
		old, _ := x.prefixes.Get(k.prefix)
		x.prefixes.Insert(k.prefix, append(old, i))
	case inNamed:
		at := slices.IndexFunc(x.named, func(n named) bool { return n.list == k.text })
		if at < 0 {
			at = len(x.named)
			x.named = append(x.named, named{list: k.text})
		}
		x.named[at].exprs = append(x.named[at].exprs, i)
	}
}

// Candidates appends to buf the numbers of the expressions that may hold, in order, each once.
func (x *Index) Candidates(f *Facts, buf []int32) []int32 {
	from := len(buf)
	buf = append(buf, x.rest...)
	sources := 1
	add := func(found []int32) {
		if len(found) > 0 {
			buf = append(buf, found...)
			sources++
		}
	}
	for _, s := range x.slots {
		add(x.equal[s][f.text(s)])
	}
	for i := range x.begin {
		b := &x.begin[i]
		text := f.text(b.slot)
		for _, size := range b.sizes {
			if size <= len(text) {
				add(b.texts[text[:size]])
			}
		}
	}
	if x.prefixes != nil && f.IP.IsValid() {
		for _, found := range x.prefixes.Supernets(netip.PrefixFrom(f.IP, f.IP.BitLen())) {
			add(found)
		}
	}
	for i := range x.named {
		if list := f.Networks[x.named[i].list]; list != nil && list.Contains(f.IP) {
			add(x.named[i].exprs)
		}
	}
	if sources > 1 {
		slices.Sort(buf[from:])
		buf = buf[:from+len(slices.Compact(buf[from:]))]
	}
	return buf
}
