package config

import "go.yaml.in/yaml/v3"

// maxMerges bounds maps that merge maps that merge maps; a map could merge itself.
const maxMerges = 8

// pair is a key of a map with its value.
type pair struct{ key, value *yaml.Node }

// pairs are the keys of a map, checked to be text and different, with those that
// `<<: *name` merges in behind them.
func (d *decoder) pairs(n *yaml.Node, at *place, merges int) []pair {
	list := make([]pair, 0, len(n.Content)/2)
	first := make(map[string]int, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" || key.Value == "":
			d.report(key, at, "", "a key of %s: want a name, not %s", nameOf(at), describe(key))
		case first[key.Value] > 0:
			d.report(key, at.child(key.Value), "", "key %s stands twice in %s, first in line %d",
				quote(key.Value), nameOf(at), first[key.Value])
		case key.ShortTag() == "!!merge":
			first[key.Value] = key.Line
			merged = append(merged, value)
		default:
			first[key.Value] = key.Line
			list = append(list, pair{key, value})
		}
	}
	for _, m := range merged {
		list = d.merge(list, first, m, at, merges)
	}
	return list
}

// merge adds the keys of a merged map that are not there yet.
func (d *decoder) merge(list []pair, first map[string]int, from *yaml.Node, at *place, merges int) []pair {
	source := from
	if source.Kind == yaml.AliasNode {
		source = source.Alias
	}
	if source.Kind != yaml.MappingNode || merges > maxMerges {
		d.report(from, at, "", "<< in %s: want one alias of a map, such as <<: *name", nameOf(at))
		return list
	}
	for _, kv := range d.pairs(source, at, merges+1) {
		if d.stopped || !d.spend(kv.key, at) {
			return list
		}
		if first[kv.key.Value] == 0 {
			first[kv.key.Value] = kv.key.Line
			list = append(list, kv)
		}
	}
	return list
}

// find looks one step further down.
func find(n *yaml.Node, step any) (key, value *yaml.Node) {
	switch step := step.(type) {
	case int:
		if n = follow(n); n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return nil, n.Content[step]
		}
	case string:
		return findKey(n, step, 0)
	}
	return nil, nil
}

func findKey(n *yaml.Node, name string, merges int) (key, value *yaml.Node) {
	n = follow(n)
	if n.Kind != yaml.MappingNode || merges > maxMerges {
		return nil, nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch {
		case n.Content[i].Value == name:
			return n.Content[i], n.Content[i+1]
		case n.Content[i].ShortTag() == "!!merge":
			merged = n.Content[i+1]
		}
	}
	if merged == nil {
		return nil, nil
	}
	return findKey(merged, name, merges+1)
}

func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
