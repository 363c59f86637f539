package match

import (
	"regexp"
	"strings"
	"testing"
)

func TestGlobMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern  string
		yes, not []string
	}{
		{"news", []string{"news"}, []string{"", "New", "NEWS", "news/", "a/news", "newsx"}},
		{"free/**", []string{"free/", "free/a", "free/a/b"}, []string{"free", "freex", "a/free/b"}},
		{"**", []string{"", "a", "a/b/c", "/"}, nil},
		{"*", []string{"", "a", "a.b"}, []string{"a/b", "/"}},
		{"live/*", []string{"live/", "live/x"}, []string{"live", "live/x/y"}},
		{"*/hd", []string{"a/hd", "/hd"}, []string{"hd", "a/b/hd", "a/hd/"}},
		{"**/hd", []string{"hd", "a/hd", "a/b/hd"}, []string{"xhd", "a/xhd", "hd/a"}},
		{"a/**/b", []string{"a/b", "a/x/b", "a/x/y/b"}, []string{"a/xb", "ab", "a/x/bc"}},
		{"a**b", []string{"ab", "axb", "a/x/b"}, []string{"a", "abx"}},
		{"x**/y", []string{"x/y", "xa/b/y"}, []string{"xy", "x"}},
		{"sport*_hd", []string{"sport_hd", "sport1_hd"}, []string{"sport/1_hd", "sport1_hd2", "sport_h"}},
		{"aa*aa", []string{"aaaa", "aabaa"}, []string{"aaa", "aa"}},
		{"*a*b*", []string{"ab", "xaxbx"}, []string{"ba", "a/b"}},
		{"**/a/**/b/**", []string{"a/b/", "x/a/y/b/z", "a/a/b/b"}, []string{"a/b", "b/a/"}},
		{"[x]?{y}", []string{"[x]?{y}"}, []string{"xay"}},
		{"канал/*", []string{"канал/один"}, []string{"канал/один/два"}},
	}
	for _, tt := range tests {
		t.Run(tt.pattern, func(t *testing.T) {
			t.Parallel()
			g, err := ParseGlob(tt.pattern)
			if err != nil {
				t.Fatalf("ParseGlob(%q): %v", tt.pattern, err)
			}
			if g.String() != tt.pattern {
				t.Errorf("String() = %q, want %q", g.String(), tt.pattern)
			}
			for _, s := range tt.yes {
				if !g.Match(s) {
					t.Errorf("%q does not match %q", tt.pattern, s)
				}
			}
			for _, s := range tt.not {
				if g.Match(s) {
					t.Errorf("%q matches %q", tt.pattern, s)
				}
			}
		})
	}
}

func TestParseGlobRefuses(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"", "a***", "a\x00b", "a\nb", "\xff", strings.Repeat("a", MaxPattern+1)} {
		if g, err := ParseGlob(pattern); err == nil {
			t.Errorf("ParseGlob(%q) = %v, want an error", pattern, g)
		}
	}
}

// Patterns that cost a backtracking matcher years: it would not come back.
func TestGlobIsLinear(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		strings.Repeat("a*", MaxPattern/2),
		strings.Repeat("**a", MaxPattern/3),
		strings.Repeat("**/", MaxPattern/3),
		strings.Repeat("*a**/", MaxPattern/5),
	} {
		g, err := ParseGlob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{strings.Repeat("a", 8192) + "b", strings.Repeat("a/", 4096) + "b"} {
			if g.Match(s) != oracle(pattern).MatchString(s) {
				t.Errorf("%q on %.20s… is not what it should be", pattern, s)
			}
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, p := range []string{"**", "*", "free/**", "**/hd", "a/**/b", "a**b*c", "x**/y", "**/**/a*"} {
		f.Add(p, "free/a/b/hd")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		g, err := ParseGlob(pattern)
		if err != nil {
			return
		}
		if got, want := g.Match(s), oracle(pattern).MatchString(s); got != want {
			t.Errorf("%q matches %q: got %v, want %v", pattern, s, got, want)
		}
		prefix, suffix := g.Affixes()
		if g.Match(s) && !(strings.HasPrefix(s, prefix) && strings.HasSuffix(s, suffix) && len(s) >= len(prefix)+len(suffix)) && !g.Literal() {
			t.Errorf("%q matches %q but not its affixes %q, %q", pattern, s, prefix, suffix)
		}
	})
}

// oracle says the same by a regular expression.
func oracle(pattern string) *regexp.Regexp {
	expr := regexp.MustCompile(`(^|/)\\\*\\\*/`).ReplaceAllString(regexp.QuoteMeta(pattern), `${1}(?:(?s:.*)/)?`)
	// Two `**/` in a row share the slash that the first expression consumed.
	expr = regexp.MustCompile(`(\)\?)\\\*\\\*/`).ReplaceAllString(expr, `${1}(?:(?s:.*)/)?`)
	expr = strings.ReplaceAll(expr, `\*\*`, `(?s:.*)`)
	expr = strings.ReplaceAll(expr, `\*`, `[^/]*`)
	return regexp.MustCompile(`^` + expr + `$`)
}

func BenchmarkGlob(b *testing.B) {
	g, err := ParseGlob("live/*/sport*_hd/**")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.Match("live/region1/sport12_hd/index")
	}
}
