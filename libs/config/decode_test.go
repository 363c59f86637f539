package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name   string            `yaml:"name"`
	Count  int               `yaml:"count"`
	Share  float64           `yaml:"share"`
	On     bool              `yaml:"on"`
	Wait   Duration          `yaml:"wait"`
	Budget time.Duration     `yaml:"budget"`
	From   []Prefix          `yaml:"from"`
	Key    Secret            `yaml:"key"`
	Limit  *limit            `yaml:"limit"`
	Nodes  map[string]limit  `yaml:"nodes"`
	Labels map[string]string `yaml:"labels"`
	Auth   auth              `yaml:"auth"`
	Raw    map[string]*Raw   `yaml:"raw"`
	Limits []limit           `yaml:"limits"`
	Deeper *sample           `yaml:"deeper"`
}

type limit struct {
	Sessions int    `yaml:"sessions"`
	By       string `yaml:"by"`
}

type auth struct {
	Name string
	Set  struct {
		Any []string `yaml:"any"`
	}
}

func (a *auth) Shape(kind Kind) any {
	switch kind {
	case Scalar:
		return &a.Name
	case Map:
		return &a.Set
	default:
		return nil
	}
}

func (a *auth) Wants() string { return "a name or {any: [...]}" }

func (s *sample) Validate() error {
	if s.Count < 0 {
		return errors.Join(errors.New("count is negative"), fmt.Errorf("all is wrong: %d", s.Count))
	}
	return nil
}

func TestDecode(t *testing.T) {
	t.Parallel()
	var got sample
	err := Decode("c.yaml", []byte(`
name: 0123
count: 7
share: 1e3
on: true
wait: 3d
budget: 800ms
from: [10.1.0.0/16, 172.16/24, 10.2.0.5, "2001:db8::/32"]
key: "env:KEY"
limit: &l {sessions: 2, by: user}
nodes:
  a: *l
  b: {<<: *l, sessions: 3}
labels: {x.y: "1"}
auth: {any: [a, b]}
limits: [*l]
`), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := sample{
		Name: "0123", Count: 7, Share: 1000, On: true, Wait: Duration(72 * time.Hour), Budget: 800 * time.Millisecond,
		From: []Prefix{{netip.MustParsePrefix("10.1.0.0/16")}, {netip.MustParsePrefix("172.16.0.0/24")},
			{netip.MustParsePrefix("10.2.0.5/32")}, {netip.MustParsePrefix("2001:db8::/32")}},
		Key: Secret{"env:KEY"}, Limit: &limit{2, "user"},
		Nodes:  map[string]limit{"a": {2, "user"}, "b": {3, "user"}},
		Labels: map[string]string{"x.y": "1"}, Limits: []limit{{2, "user"}},
	}
	want.Auth.Set.Any = []string{"a", "b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestDecodeProblems(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ in, want string }{
		"near miss":      {"name: a\nlimit: {sesions: 1}", `c.yaml:2:9: unknown key "sesions" in limit; did you mean "sessions"?`},
		"far miss":       {"limit: {zzz: 1}", `c.yaml:1:9: unknown key "zzz" in limit; known are sessions, by`},
		"at the top":     {"nme: x", `c.yaml:1:1: unknown key "nme"; did you mean "name"?`},
		"case":           {"Name: x", `c.yaml:1:1: unknown key "Name"; did you mean "name"?`},
		"text for int":   {"count: two", `c.yaml:1:8: count: want a whole number, not "two"`},
		"quoted int":     {"count: '2'", `c.yaml:1:8: count: want a whole number, not "2"`},
		"octal":          {"count: 010", `c.yaml:1:8: count: want a whole number, not the number 010`},
		"fraction":       {"count: 1.5", `c.yaml:1:8: count: want a whole number, not the number 1.5`},
		"too big":        {"count: 99999999999999999999", `c.yaml:1:8: count: want a whole number, not the number 99999999999999999999`},
		"yes":            {"on: yes", `c.yaml:1:5: on: want true or false, not "yes"`},
		"bool for text":  {"name: true", `c.yaml:1:7: name: want text; true and false need quotes there, not true`},
		"list for text":  {"name: [a]", `c.yaml:1:7: name: want text, not a list`},
		"text for list":  {"from: 10.0.0.1", `c.yaml:1:7: from: want a list such as [a, b], not "10.0.0.1"`},
		"text for map":   {"limit: 2", `c.yaml:1:8: limit: want a map, not the number 2`},
		"shape":          {"auth: [a]", `c.yaml:1:7: auth: want a name or {any: [...]}, not a list`},
		"no unit":        {"wait: 180", `c.yaml:1:7: wait: want a duration with its unit, such as 1500ms, 90s, 6h or 3d, not "180"`},
		"negative":       {"wait: -1s", `c.yaml:1:7: wait: want a duration with its unit, such as 1500ms, 90s, 6h or 3d, not "-1s"`},
		"native wait":    {"budget: 1", `c.yaml:1:9: budget: want a duration with its unit, such as 1500ms, 90s, 6h or 3d, not "1"`},
		"prefix":         {"from: [10.1]", `c.yaml:1:8: from[0]: want an address or a prefix, such as 10.2.0.5, 10.1.0.0/16, 172.16/24 or 2001:db8::/32, not "10.1"`},
		"naked secret":   {"key: hunter2", `c.yaml:1:6: key: want a reference to the secret, file:/path or env:NAME, not the secret itself`},
		"null":           {"limit:\nname: x", `c.yaml:1:7: limit is empty: give it a value or leave it out`},
		"duplicate":      {"name: a\nname: b", `c.yaml:2:1: key "name" stands twice in the file, first in line 1`},
		"duplicate node": {"nodes:\n  a: {}\n  a: {}", `c.yaml:3:3: key "a" stands twice in nodes, first in line 2`},
		"key no text":    {"? [a]\n: b", `c.yaml:1:3: a key of the file: want a name, not a list`},
		"two documents":  {"name: a\n---\nname: b", `c.yaml:2:1: a second YAML document begins here; one file holds one document`},
		"tab":            {"limit:\n\tsessions: 1", "c.yaml:2:1: not YAML: found character that cannot start any token (YAML is indented with spaces, never with tabs; text that begins with @, ` or % needs quotes)"},
		"own tag":        {"name: !x y", `c.yaml:1:7: name: want text, not "y"`},
		"own tag wait":   {"wait: !x 3d", `c.yaml:1:7: wait: want text, not "3d"`},
		"scalar file":    {"hello", `c.yaml:1:1: the file: want a map, not "hello"`},
		"odd key":        {"nodes: {\"a b\": {by: []}}", `c.yaml:1:21: nodes["a b"].by: want text, not a list`},
		"merge":          {"limit: {<<: 3}", `c.yaml:1:13: << in limit: want one alias of a map, such as <<: *name`},
		"validate":       {"name: x\ncount: -1", "c.yaml:1:1: all is wrong: -1\nc.yaml:2:8: count is negative"},
		"all at once":    {"nme: x\ncount: x\nlimit: {by: [], z: 1}", "c.yaml:1:1: unknown key \"nme\"; did you mean \"name\"?\nc.yaml:2:8: count: want a whole number, not \"x\"\nc.yaml:3:13: limit.by: want text, not a list\nc.yaml:3:17: unknown key \"z\" in limit; known are sessions, by"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Decode("c.yaml", []byte(tt.in), new(sample))
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want Problems", err)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestDecodeHostile(t *testing.T) {
	t.Parallel()
	bomb := "labels: &a {x: y}\nlimits: &b0 [{by: x}, {by: x}, {by: x}, {by: x}, {by: x}, {by: x}, {by: x}, {by: x}, {by: x}]\n"
	var laughs strings.Builder
	laughs.WriteString("x0: &x0 {sessions: 1, by: a}\n")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&laughs, "x%d: &x%d {<<: *x%d, <<: *x%d, <<: *x%d}\n", i, i, i-1, i-1, i-1)
	}
	laughs.WriteString("limit: *x19")
	tests := map[string]struct {
		in   string
		want string // part of the error, "" none
	}{
		"empty":          {"", ""},
		"comment":        {"# nothing\n", ""},
		"too long":       {strings.Repeat("#", MaxSize+1), "at most 8388608 are allowed"},
		"self alias":     {"deeper: &a {deeper: *a}", "deep in each other"},
		"self merge":     {"limit: &a {<<: *a}", "want one alias of a map"},
		"merge bomb":     {laughs.String(), "stands twice"},
		"many aliases":   {bomb + "deeper: {limits: [" + strings.Repeat("*a, ", 150_000) + "]}", "problems from here on"},
		"aliases":        {"deeper: {limit: &l {by: x}}\nlimits: [" + strings.Repeat("*l, ", 150_000) + "]", "more than 100000 values"},
		"deep":           {strings.Repeat("[", 20_000), "not YAML"},
		"not utf-8":      {"name: \xff\xfe", "not YAML"},
		"many problems":  {"labels: {" + strings.Repeat("? []\n, ", 5000) + "}", "more problems from here on"},
		"unknown anchor": {"name: *x", "not YAML"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Decode("c.yaml", []byte(tt.in), new(sample))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %.300v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestRawDecode(t *testing.T) {
	t.Parallel()
	var s sample
	doc, err := Parse("c.yaml", []byte("raw:\n  a: &a {type: x, by: y, count: 1}\n  b: {<<: *a, bye: z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if ps := doc.Decode(&s); ps != nil {
		t.Fatal(ps)
	}
	type common struct {
		Type string `yaml:"type"`
	}
	var c common
	var l limit
	rest := sample{}
	if ps := s.Raw["a"].Decode(&c, &l, &rest); ps != nil || c.Type != "x" || l.By != "y" || rest.Count != 1 {
		t.Errorf("got %v %v %v %v", c, l, rest.Count, ps)
	}
	if got := s.Raw["b"].Text("type"); got != "x" {
		t.Errorf("Text(type) = %q, want the merged x", got)
	}
	got := s.Raw["b"].Decode(&c, &l, &rest).Error()
	if want := `c.yaml:3:15: unknown key "bye" in raw.b; did you mean "by"?`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDocumentProblem(t *testing.T) {
	t.Parallel()
	doc, err := Parse("c.yaml", []byte("limits:\n  - by: user\n  - sessions: 1\nnodes:\n  a.b:\n    by: x\n"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path []any
		want string
	}{
		{nil, "c.yaml:1:1: m"},
		{[]any{"limits", 1, "sessions"}, "c.yaml:3:15: m"},
		{[]any{"limits", 1, "by"}, "c.yaml:3:5: m"},
		{[]any{"limits", 7, "by"}, "c.yaml:1:1: m"},
		{[]any{"nodes", "a.b"}, "c.yaml:5:3: m"},
		{[]any{"nodes", "a.b", "by"}, "c.yaml:6:9: m"},
	}
	for _, tt := range tests {
		if got := doc.Problem("m", tt.path...).String(); got != tt.want {
			t.Errorf("Problem at %v = %q, want %q", tt.path, got, tt.want)
		}
	}
	if got, want := doc.Problem("m", "nodes", "a.b", "x", 3).Path, `nodes["a.b"].x[3]`; got != want {
		t.Errorf("Path = %s, want %s", got, want)
	}
	if !doc.Has("limits", 0, "by") || doc.Has("limits", 1, "by") || doc.Has("x", "y") {
		t.Error("Has says the wrong thing")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("name: x\nlimit: &l {by: a}\nnodes: {a: *l, b: {<<: *l}}\n")
	f.Add("deeper: &a {deeper: *a}")
	f.Add("limit: &a {<<: *a}")
	f.Add("? [a]\n: {b: \"\\x00\"}\n--- !!binary x\n")
	f.Add("wait: 3d\nfrom: [10/8]\nkey: env:A\nauth: {any: [a]}")
	f.Fuzz(func(t *testing.T, in string) {
		var s sample
		err := Decode("c.yaml", []byte(in), &s)
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Errorf("got %T, want Problems", err)
		}
		for _, p := range problems {
			if p.Message == "" || strings.ContainsAny(p.String(), "\x00\n") {
				t.Errorf("bad message %q", p.String())
			}
		}
	})
}
