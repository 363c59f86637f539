package match

import (
	"maps"
	"strings"
	"testing"
)

func TestAliases(t *testing.T) {
	t.Parallel()
	a, err := NewAliases(map[string]string{
		"crf79": "clock", "a/**": "b/**", "a/deep/**": "deep/**", "a/x": "exact", "long/**": strings.Repeat("l", 250) + "/**",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"crf79": "clock", "a/y": "b/y", "a/y/z": "b/y/z", "a/deep/z": "deep/z", "a/x": "exact",
		"a": "", "a/": "b/", "aa/y": "", "clock": "", "b/y": "", "": "", "long/1": strings.Repeat("l", 250) + "/1", "long/123456": "",
	} {
		got, ok := a.Stream(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("Stream(%q) = %q, %v, want %q", name, got, ok, want)
		}
	}
	for name, want := range map[string]bool{
		"clock": true, "exact": true, "b/y": true, "deep/a/b": true, "crf79": false, "b": false, "a/y": false, "": false,
	} {
		if got := a.Hides(name); got != want {
			t.Errorf("Hides(%q) = %v, want %v", name, got, want)
		}
	}
	again, err := NewAliases(a.Names())
	if err != nil || !maps.Equal(again.Names(), a.Names()) || len(a.Names()) != 5 {
		t.Errorf("Names() = %v, %v, want what it was made of", a.Names(), err)
	}
}

func TestAliasesThatCannotBe(t *testing.T) {
	t.Parallel()
	for from, to := range map[string]string{
		"": "a", "a": "", "a/**": "b", "b": "a/**", "a*": "b", "/a": "b", "x": "/b", "a\x00": "b", "/**": "b/**", "y": strings.Repeat("a", 257),
	} {
		if _, err := NewAliases(map[string]string{from: to}); err == nil {
			t.Errorf("%q: %q was taken", from, to)
		}
	}
}
