package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file. A policy of 10,000 streams has about 1 MB.
const (
	MaxSize     = 8 << 20 // bytes
	maxDepth    = 64      // of lists and maps in each other
	maxAliased  = 100_000 // values that aliases may stand for, all together
	maxProblems = 100     // reported at once
)

// Document is a parsed YAML file that still knows where everything stands.
type Document struct {
	file string
	root *yaml.Node // nil for an empty file
}

// Parse reads one YAML document of at most MaxSize bytes. The error is Problems.
func Parse(file string, data []byte) (*Document, error) {
	if len(data) > MaxSize {
		return nil, Problems{{File: file, Message: fmt.Sprintf("the file has %d bytes, at most %d are allowed", len(data), MaxSize)}}
	}
	d := &Document{file: file}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		return d, nil
	} else if err != nil {
		return nil, Problems{d.syntax(err)}
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, Problems{{File: file, Line: second.Line, Column: second.Column,
			Message: "a second YAML document begins here; one file holds one document"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Problems{d.syntax(err)}
	}
	d.root = first.Content[0]
	return d, nil
}

var syntaxLine = regexp.MustCompile(`^line ([0-9]+): `)

// syntax makes a problem of the parser's error, whose text holds the line.
func (d *Document) syntax(err error) Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: d.file}
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			p.Line, p.Column = n, 1
		}
	}
	if strings.Contains(text, "cannot start any token") {
		text += " (YAML is indented with spaces, never with tabs; text that begins with @, ` or % needs quotes)"
	}
	p.Message = "not YAML: " + text
	return p
}

// Decode fills the struct that into points to, by its `yaml` tags; keys that are
// not written keep the values that stand in it. A type is decoded by Shaper or
// encoding.TextUnmarshaler if it is one. If the struct has Validate() error,
// that is asked when all else is right; joined errors are separate problems,
// placed by the key that their text begins with.
func (d *Document) Decode(into any) Problems {
	dec := newDecoder(d.file)
	if d.root != nil {
		dec.value(d.root, nil, reflect.ValueOf(into).Elem())
	}
	if v, ok := into.(validator); ok && len(dec.problems) == 0 {
		dec.validate(v, d.root, nil)
	}
	dec.problems.Sort()
	return dec.problems
}

// Decode parses and decodes in one step; see Parse and Document.Decode. The
// error is Problems.
func Decode(file string, data []byte, into any) error {
	d, err := Parse(file, data)
	if err != nil {
		return err
	}
	return d.Decode(into).Err()
}

// Problem makes a problem of the value under a path of keys (string) and
// indexes (int). What is not in the file is placed at what should hold it.
func (d *Document) Problem(message string, path ...any) Problem {
	var at *place
	node, position := d.root, d.root
	for _, step := range path {
		at = at.child(step)
		if node == nil {
			continue
		}
		key, value := find(node, step)
		if value != nil {
			position = value
			if key != nil && value.Kind != yaml.ScalarNode {
				// A block begins on the line after its key.
				position = key
			}
		}
		node = value
	}
	return problem(d.file, position, at, message)
}

// Has says whether something stands under the path.
func (d *Document) Has(path ...any) bool { return d.node(path) != nil }

// Keys are the keys of the map under the path, in the file's order, without
// those that are merged in.
func (d *Document) Keys(path ...any) []string {
	n := d.node(path)
	if n == nil {
		return nil
	}
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	keys := make([]string, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			keys = append(keys, n.Content[i].Value)
		}
	}
	return keys
}

func (d *Document) node(path []any) *yaml.Node {
	n := d.root
	for _, step := range path {
		if n == nil {
			return nil
		}
		_, n = find(n, step)
	}
	return n
}

func problem(file string, n *yaml.Node, at *place, message string) Problem {
	p := Problem{File: file, Path: at.String(), Message: message}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	return p
}

// place is where a value stands, as a chain to the root; nil is the root.
type place struct {
	parent *place
	key    string
	index  int // used if key is ""
	depth  int
}

func (p *place) child(step any) *place {
	c := &place{parent: p, depth: 1}
	if p != nil {
		c.depth = p.depth + 1
	}
	switch step := step.(type) {
	case int:
		c.index = step
	case string:
		c.key = step
	}
	return c
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// String is the place as messages name it: streams[0].limit.
func (p *place) String() string {
	if p == nil {
		return ""
	}
	switch {
	case p.key == "":
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	case !plainKey.MatchString(p.key):
		return p.parent.String() + "[" + strconv.Quote(p.key) + "]"
	case p.parent == nil:
		return p.key
	}
	return p.parent.String() + "." + p.key
}
