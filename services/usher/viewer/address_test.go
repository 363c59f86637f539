package viewer

import (
	"net/url"
	"slices"
	"testing"

	"usher.internal/libs/match"
	"usher.internal/libs/policy"
)

func node(t *testing.T, pattern string, token ...string) *policy.Node {
	t.Helper()
	n := &policy.Node{Token: token}
	if pattern != "" {
		u, err := match.ParseURL(pattern)
		if err != nil {
			t.Fatal(err)
		}
		n.URL = u
	}
	return n
}

// A path that is made up for a stream is read back as that stream, and a token that is brought
// is found again.
func TestPathAndBring(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n                           *policy.Node
		stream, path, query, header string
	}{
		"default":     {node(t, "", "query:token"), "news/bbc one", "/news/bbc%20one/index.m3u8", "a=b&token=x%2By", ""},
		"pattern":     {node(t, "/hls/{stream}/**", "query:t"), "bbc", "/hls/bbc/index.m3u8", "a=b&t=x%2By", ""},
		"in the path": {node(t, "/p/*/{stream}/**", "path:2"), "bbc", "/p/x+y/bbc/index.m3u8", "a=b", ""},
		"header":      {node(t, "", "header:X-Token"), "bbc", "/bbc/index.m3u8", "a=b", "X-Token: x+y"},
		"bearer":      {node(t, "", "header:authorization"), "bbc", "/bbc/index.m3u8", "a=b", "authorization: Bearer x+y"},
		"cookie":      {node(t, "", "cookie:t"), "bbc", "/bbc/index.m3u8", "a=b", "Cookie: t=x+y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, query, header := Bring(c.n, Path(c.n, c.stream), "a=b", "x+y")
			if path != c.path || query != c.query || header != c.header {
				t.Fatalf("Bring = %q, %q, %q, want %q, %q, %q", path, query, header, c.path, c.query, c.header)
			}
			read := match.DefaultStream
			if c.n.URL != nil {
				read = c.n.URL.Stream
			}
			if got, ok := read(path); !ok || got != c.stream {
				t.Errorf("the node reads stream %q, %t out of it, want %q", got, ok, c.stream)
			}
			u, err := url.Parse(path + "?" + query)
			if err != nil {
				t.Fatal(err)
			}
			if found := Brought(c.n, u); header == "" && !slices.Contains(found, "x+y") {
				t.Errorf("Brought = %q", found)
			}
			if found := Brought(nil, u); header == "" && !slices.Contains(found, "x+y") {
				t.Errorf("Brought without a node = %q", found)
			}
		})
	}
}
