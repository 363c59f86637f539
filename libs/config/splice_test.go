package config

import (
	"strings"
	"testing"
)

func TestSplice(t *testing.T) {
	t.Parallel()
	text := "a: [x, 'y''z', \"\\\"w\\\"\"] # x\nb:\n  c: x\nd: {c: x}\n"
	doc, err := Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := doc.Splice([]byte(text), strings.ToUpper, []any{"a", Each{}}, []any{"b", "c"}, []any{"none", Each{}, "c"}, []any{"b"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "a: [\"X\", \"Y'Z\", \"\\\"W\\\"\"] # x\nb:\n  c: \"X\"\nd: {c: x}\n"; string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	empty, err := Parse("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := empty.Splice(nil, strings.ToUpper, []any{"a"}); err != nil || len(got) != 0 {
		t.Errorf("empty file: %q, %v", got, err)
	}
}
