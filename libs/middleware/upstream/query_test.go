package upstream

import (
	"strings"
	"testing"
)

func TestJoinAndAppend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ours, viewer, joined, appended string }{
		{"", "", "", ""},
		{"k=1", "", "k=1", "k=1"},
		{"", "t=1&&x=%zz;y&", "t=1&&x=%zz;y&", "t=1&&x=%zz;y&"},
		{"k=1", "t=a%2Bb+c;d&t=e", "k=1&t=a%2Bb+c;d&t=e", "t=a%2Bb+c;d&t=e&k=1"},
		{"k=1", "k=2", "k=1", "k=1"},
		{"k=1", "k=2&t=1", "k=1&t=1", "t=1&k=1"},
		{"k=1", "t=1&k=2", "k=1&t=1", "t=1&k=1"},
		{"k=1&l", "t=1&k=2&u=2&L[]=3&v=3", "k=1&l&t=1&u=2&v=3", "t=1&u=2&v=3&k=1&l"},
		{"k=1", "t=1;K=2;u=2", "k=1&t=1;u=2", "t=1;u=2&k=1"},
		{"k=1", "&&k=2&&t=1", "k=1&&&&t=1", "&&&t=1&k=1"},
	} {
		if got := Join(c.ours, c.viewer); got != c.joined {
			t.Errorf("Join(%q, %q) = %q, want %q", c.ours, c.viewer, got, c.joined)
		}
		if got := Append(c.viewer, c.ours); got != c.appended {
			t.Errorf("Append(%q, %q) = %q, want %q", c.viewer, c.ours, got, c.appended)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                   "true",
		"token=a":            "a true",
		"token=a%2B&x=1":     "a%2B true",
		"token=a&token=b":    "a,b true",
		"token=a;token=b":    "a,b true",
		"token[]=a":          "a false",
		"%74oken=a":          "a false",
		"token":              " false",
		"TOKEN=a&+token%00b": "a, false",
		"tokens=a&xtoken=b":  "true",
	} {
		raw, plain := Values(query, "token")
		got := "true"
		if !plain {
			got = "false"
		}
		if len(raw) > 0 {
			got = strings.Join(raw, ",") + " " + got
		}
		if got != want {
			t.Errorf("Values(%q) = %q, want %q", query, got, want)
		}
	}
}

// FuzzWithout holds for any query: nothing that can be read as the name is left, and
// what is left are the viewer's bytes in their order.
func FuzzWithout(f *testing.F) {
	for _, q := range []string{"", "name=1", "a=1&name=2;b=3", "%6eame[]=1&&;x", "+name%00=&a", ";;&name", "a&name&b"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := Without(query, "name")
		if raw, _ := Values(got, "name"); len(raw) > 0 {
			t.Errorf("Without(%q) = %q, which still has it", query, got)
		}
		if raw, _ := Values(query, "name"); len(raw) == 0 && got != query {
			t.Errorf("Without(%q) = %q, want it untouched", query, got)
		}
		if Without(got, "name") != got {
			t.Errorf("Without(%q) is not stable", query)
		}
		rest := query
		for i := range len(got) {
			j := strings.IndexByte(rest, got[i])
			if j < 0 {
				t.Fatalf("Without(%q) = %q has bytes of its own", query, got)
			}
			rest = rest[j+1:]
		}
	})
}
