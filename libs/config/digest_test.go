package config

import "testing"

func TestDigestIsOfValues(t *testing.T) {
	t.Parallel()
	parse := func(text string) *Document {
		d, err := Parse("x.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := parse("a: {b: 1, c: [x, y]}\nd: 1\n").Digest("a")
	for text, same := range map[string]bool{
		"# why\nd: 2\na:\n  b: 1 # one\n  c:\n  - x\n  - \"y\"\n": true,
		"z: &z {b: 1, c: [x, y]}\na: *z\n":                        true,
		"a: {b: 1, c: [x]}\n":                                     false,
		"a: {b: \"1\", c: [x, y]}\n":                              false,
		"a: {b: 1, c: [xy]}\n":                                    false,
		"a: {b: 1, c: x, y: }\n":                                  false,
		"b: 1\n":                                                  false,
	} {
		if got := parse(text).Digest("a") == base; got != same {
			t.Errorf("%q: the same is %v, want %v", text, got, same)
		}
	}
	bomb := parse("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
		"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n")
	if bomb.Digest("g") == bomb.Digest("f") {
		t.Error("two places have one digest")
	}
}
