package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kind is the form in which a value is written.
type Kind string

// The kinds of values.
const (
	Scalar Kind = "scalar"
	List   Kind = "list"
	Map    Kind = "map"
)

// Shaper is a type that may be written in more than one form, such as "a name or
// a map". It is implemented by the pointer to the type.
type Shaper interface {
	// Shape gives a pointer to what a value of this kind is decoded into, nil if
	// the kind is not accepted.
	Shape(kind Kind) any
	// Wants says in words what may be written, such as "a name or {any: [...]}".
	Wants() string
}

// Raw keeps a map undecoded, for values whose keys depend on one of them. The
// zero Raw is what a value that is no map leaves: it has no keys.
type Raw struct {
	file    string
	node    *yaml.Node
	at      *place
	aliased *int
}

// Decode fills several structs from one map: each takes the keys that it has, and
// a key that none of them has is unknown. Validate is asked as in Document.Decode.
func (r *Raw) Decode(into ...any) Problems {
	if r.node == nil {
		return nil
	}
	dec := newDecoder(r.file)
	dec.aliased = r.aliased
	values := make([]reflect.Value, len(into))
	for i, v := range into {
		values[i] = reflect.ValueOf(v).Elem()
	}
	dec.object(r.node, r.at, values...)
	for _, v := range into {
		if v, ok := v.(validator); ok && len(dec.problems) == 0 {
			dec.validate(v, r.node, r.at)
		}
	}
	dec.problems.Sort()
	return dec.problems
}

// Text is the text of a key of the map, "" if it is missing or no text.
func (r *Raw) Text(key string) string {
	if r.node == nil {
		return ""
	}
	if _, value := find(r.node, key); value != nil && value.Kind == yaml.ScalarNode {
		return value.Value
	}
	return ""
}

type validator interface{ Validate() error }

// decoder collects the problems of one pass.
type decoder struct {
	file     string
	problems Problems
	stopped  bool // enough problems, or too much to read
	fields   map[reflect.Type]*object
	aliases  int  // aliases that we are in
	aliased  *int // values that aliases stood for so far, in the whole file
}

// object is what is known of a struct type.
type object struct {
	index map[string][]int
	names []string // in the struct's order
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, fields: map[reflect.Type]*object{}, aliased: new(int)}
}

func (d *decoder) report(n *yaml.Node, at *place, suggestion, format string, args ...any) {
	if d.stopped {
		return
	}
	if len(d.problems) == maxProblems {
		d.stopped = true
		d.problems = append(d.problems, problem(d.file, n, at, "there are more problems from here on"))
		return
	}
	p := problem(d.file, n, at, fmt.Sprintf(format, args...))
	p.Suggestion = suggestion
	d.problems = append(d.problems, p)
}

// wrong reports a value that has another form than wanted.
func (d *decoder) wrong(n *yaml.Node, at *place, want string) {
	d.report(n, at, "", "%s: want %s, not %s", nameOf(at), want, describe(n))
}

func nameOf(at *place) string {
	if at == nil {
		return "the file"
	}
	return at.String()
}

// value decodes one node into v.
func (d *decoder) value(n *yaml.Node, at *place, v reflect.Value) {
	if d.stopped {
		return
	}
	if n.Kind == yaml.AliasNode {
		d.aliases++
		defer func() { d.aliases-- }()
		n = n.Alias
	}
	if d.aliases > 0 && !d.spend(n, at) {
		return
	}
	if at != nil && at.depth > maxDepth {
		d.report(n, at, "", "lists and maps stand more than %d deep in each other", maxDepth)
		d.stopped = true
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, at, v.Elem())
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.report(n, at, "", "%s is empty: give it a value or leave it out", nameOf(at))
		return
	}
	if d.special(n, at, v) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, at, v)
	case reflect.Map:
		d.table(n, at, v)
	case reflect.Slice:
		d.list(n, at, v)
	default:
		d.scalar(n, at, v)
	}
}

// spend counts a value that an alias stands for: nine lines of aliases of
// aliases can stand for a billion values.
func (d *decoder) spend(n *yaml.Node, at *place) bool {
	if *d.aliased++; *d.aliased <= maxAliased {
		return true
	}
	d.report(n, at, "", "aliases (*name) stand for more than %d values", maxAliased)
	d.stopped = true
	return false
}

// special decodes types that say themselves how.
func (d *decoder) special(n *yaml.Node, at *place, v reflect.Value) bool {
	switch into := v.Addr().Interface().(type) {
	case *Raw:
		if n.Kind != yaml.MappingNode {
			d.wrong(n, at, "a map")
			return true
		}
		*into = Raw{d.file, n, at, d.aliased}
	case Shaper:
		shape := into.Shape(kindOf(n))
		if shape == nil {
			d.wrong(n, at, into.Wants())
			return true
		}
		d.value(n, at, reflect.ValueOf(shape).Elem())
	case encoding.TextUnmarshaler:
		d.text(n, at, into)
	default:
		return false
	}
	return true
}

// object decodes a map into structs, each taking the keys that it has.
func (d *decoder) object(n *yaml.Node, at *place, targets ...reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, at, "a map")
		return
	}
	for _, kv := range d.pairs(n, at, 0) {
		known := false
		for _, v := range targets {
			if index, ok := d.keysOf(v.Type()).index[kv.key.Value]; ok {
				known = true
				d.value(kv.value, at.child(kv.key.Value), v.FieldByIndex(index))
			}
		}
		if !known {
			d.unknown(kv.key, at, targets)
		}
	}
}

func (d *decoder) unknown(key *yaml.Node, at *place, targets []reflect.Value) {
	var names []string
	for _, v := range targets {
		for _, name := range d.keysOf(v.Type()).names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	where, known := "", ""
	if at != nil {
		where = " in " + at.String()
	}
	near := Nearest(key.Value, names)
	if near == "" {
		known = "; known are " + strings.Join(names, ", ")
	}
	d.report(key, at.child(key.Value), near, "unknown key %s%s%s", quote(key.Value), where, known)
}

// keysOf finds the keys of a struct type, once.
func (d *decoder) keysOf(t reflect.Type) *object {
	if o, ok := d.fields[t]; ok {
		return o
	}
	o := &object{index: map[string][]int{}}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" || options == "inline" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		o.index[name] = f.Index
		o.names = append(o.names, name)
	}
	d.fields[t] = o
	return o
}

func (d *decoder) table(n *yaml.Node, at *place, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, at, "a map")
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, kv := range d.pairs(n, at, 0) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(kv.value, at.child(kv.key.Value), item)
		v.SetMapIndex(reflect.ValueOf(kv.key.Value).Convert(v.Type().Key()), item)
	}
}

func (d *decoder) list(n *yaml.Node, at *place, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.wrong(n, at, "a list such as [a, b]")
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(c, at.child(i), items.Index(i))
	}
	v.Set(items)
}

// validate places what Validate finds by the key that its text begins with.
func (d *decoder) validate(v validator, n *yaml.Node, at *place) {
	for _, err := range split(v.Validate()) {
		text := err.Error()
		if key := firstWord(text); n != nil {
			if _, value := find(n, key); value != nil {
				d.report(value, at.child(key), "", "%s%s", at.child(key), text[len(key):])
				continue
			}
		}
		if at != nil {
			text = at.String() + ": " + text
		}
		d.report(n, at, "", "%s", text)
	}
}

func firstWord(text string) string {
	if i := strings.IndexAny(text, " :"); i >= 0 {
		return text[:i]
	}
	return text
}

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}
