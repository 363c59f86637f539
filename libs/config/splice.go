package config

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Each stands in a path for every item of a list and every value of a map.
type Each struct{}

// Splice gives the file's text with the scalars under the paths replaced by what
// change makes of them, in double quotes; all else stays byte for byte. data is what
// was parsed. The error, Problems, names scalars that cannot be replaced in place:
// block text (| and >), text with an anchor or a tag, plain text over several lines.
func (d *Document) Splice(data []byte, change func(value string) string, paths ...[]any) ([]byte, error) {
	var nodes []*yaml.Node
	for _, path := range paths {
		nodes = collect(nodes, d.root, path)
	}
	slices.SortFunc(nodes, func(a, b *yaml.Node) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	nodes = slices.Compact(nodes) // an alias leads to the same node again
	lines := lineStarts(data)
	var out bytes.Buffer
	var problems Problems
	done := 0
	for _, n := range nodes {
		from := offset(data, lines, n)
		length := sourceLength(data[from:], n)
		if length == 0 || from < done {
			problems = append(problems, problem(d.file, n, nil, "this text must stand in one line, in double quotes, without an anchor"))
			continue
		}
		fmt.Fprintf(&out, "%s%s", data[done:from], strconv.Quote(change(n.Value)))
		done = from + length
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	out.Write(data[done:])
	return out.Bytes(), nil
}

// collect finds the scalars under a path.
func collect(nodes []*yaml.Node, n *yaml.Node, path []any) []*yaml.Node {
	if n == nil {
		return nodes
	}
	n = follow(n)
	if len(path) == 0 {
		if n.Kind == yaml.ScalarNode {
			nodes = append(nodes, n)
		}
		return nodes
	}
	if _, each := path[0].(Each); !each {
		_, value := find(n, path[0])
		return collect(nodes, value, path[1:])
	}
	return each(nodes, n, path)
}

// each follows the path, which begins with Each, into all that n holds, with the keys that
// a map merges in.
func each(nodes []*yaml.Node, n *yaml.Node, path []any) []*yaml.Node {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			nodes = collect(nodes, item, path[1:])
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Tag == "!!merge" {
				nodes = each(nodes, follow(value), path)
				continue
			}
			nodes = collect(nodes, value, path[1:])
		}
	}
	return nodes
}

// lineBreak is what YAML takes for the end of a line.
var lineBreak = regexp.MustCompile(`\r\n|[\r\n\x{85}\x{2028}\x{2029}]`)

func lineStarts(data []byte) []int {
	starts := []int{0}
	for _, at := range lineBreak.FindAllIndex(data, -1) {
		starts = append(starts, at[1])
	}
	return starts
}

// offset is where a node begins; columns count characters, not bytes.
func offset(data []byte, lines []int, n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(lines) {
		return len(data)
	}
	at := lines[n.Line-1]
	for column := 1; column < n.Column && at < len(data); column++ {
		_, size := utf8.DecodeRune(data[at:])
		at += size
	}
	return at
}

// sourceLength is how many bytes the scalar takes in the source, 0 if that is not sure.
func sourceLength(source []byte, n *yaml.Node) int {
	switch {
	case n.Anchor != "":
		return 0
	case n.Style&yaml.DoubleQuotedStyle != 0 && bytes.HasPrefix(source, []byte{'"'}):
		for i := 1; i < len(source); i++ {
			switch source[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0 && bytes.HasPrefix(source, []byte{'\''}):
		for i := 1; i < len(source); i++ {
			if source[i] != '\'' {
				continue
			}
			if !bytes.HasPrefix(source[i:], []byte("''")) {
				return i + 1
			}
			i++
		}
	case n.Style == 0 && strings.HasPrefix(string(source), n.Value):
		return len(n.Value)
	}
	return 0
}
