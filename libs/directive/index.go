package directive

import (
	"hash/maphash"
	"maps"
	"slices"
)

// indexShards keeps a change cheap: it copies one part of the index, not all of it.
const indexShards = 256

// seed spreads keys over shards; any will do, in one process.
var seed = maphash.MakeSeed()

// index finds entries by one criterion. It is immutable but for add, which is for building.
type index[K comparable] struct {
	shards *[indexShards]map[K][]*entry // nil while empty
}

func shardOf[K comparable](k K) int { return int(maphash.Comparable(seed, k) % indexShards) }

func (x index[K]) get(k K) []*entry {
	if x.shards == nil {
		return nil
	}
	return x.shards[shardOf(k)][k]
}

// add puts an entry into an index that nobody else sees yet.
func (x *index[K]) add(k K, e *entry) {
	if x.shards == nil {
		x.shards = new([indexShards]map[K][]*entry)
	}
	n := shardOf(k)
	if x.shards[n] == nil {
		x.shards[n] = make(map[K][]*entry)
	}
	x.shards[n][k] = append(x.shards[n][k], e)
}

// change is a copy of the index with another list under k.
func (x index[K]) change(k K, f func([]*entry) []*entry) index[K] {
	shards := new([indexShards]map[K][]*entry)
	if x.shards != nil {
		*shards = *x.shards
	}
	n := shardOf(k)
	own := maps.Clone(shards[n])
	if own == nil {
		own = make(map[K][]*entry)
	}
	if list := f(own[k]); len(list) > 0 {
		own[k] = list
	} else {
		delete(own, k)
	}
	shards[n] = own
	return index[K]{shards: shards}
}

// with and without are lists as change wants them: never the old list's own memory.
func with(e *entry) func([]*entry) []*entry {
	return func(list []*entry) []*entry { return append(slices.Clip(list), e) }
}

func without(e *entry) func([]*entry) []*entry {
	return func(list []*entry) []*entry {
		return slices.DeleteFunc(slices.Clone(list), func(o *entry) bool { return o.ID == e.ID })
	}
}
