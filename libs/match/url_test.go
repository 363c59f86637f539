package match

import (
	"strings"
	"testing"
)

func TestURLStream(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, path, want string // want "" means not ok
	}{
		{"/hls/{stream}/**", "/hls/bbc/index.m3u8", "bbc"},
		{"/hls/{stream}/**", "/hls/bbc/720p/seg1.ts", "bbc"},
		{"/hls/{stream}/**", "/hls//bbc///seg1.ts", "bbc"},
		{"/hls/{stream}/**", "/hls/bbc", ""},
		{"/hls/{stream}/**", "/hls//seg.ts", ""},
		{"/hls/{stream}/**", "/live/bbc/seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/bbc%20one/seg1.ts", "bbc one"},
		{"/hls/{stream}/**", "/hls/a%2Fb/seg1.ts", "a"},
		{"/hls/{stream}/**", "/hls/free/../paid/seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/free/%2e%2e/paid/seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/./seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/bb\x00c/seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/%ff/seg1.ts", ""},
		{"/hls/{stream}/**", "/hls/%zz/seg1.ts", ""},
		{"/hls/{stream}/**", "hls/bbc/seg1.ts", ""},
		{"/hls/{stream}/**", "", ""},
		{"/hls/{stream}/**", "/hls/" + strings.Repeat("a", 257) + "/x", ""},
		{"/hls/{stream...}/**", "/hls/uk/bbc/seg1.ts", "uk/bbc"},
		{"/hls/{stream...}/**", "/hls/uk/bbc/1080p60/audio/seg1.ts", "uk/bbc"},
		{"/{stream...}/*.m3u8", "/uk/bbc/index.m3u8", "uk/bbc"},
		{"/{stream...}/*.m3u8", "/uk/bbc/seg1.ts", ""},
		{"/play/{stream}.m3u8", "/play/a001.m3u8", "a001"},
		{"/play/{stream}.m3u8", "/play/a001/x.m3u8", ""},
		{"/play/{stream}.m3u8", "/play/a001xm3u8", ""},
		{"**/live/{stream}/*", "/live/a/x", ""},
		{"/**/live/{stream}/*", "/live/a/x", "a"},
		{"/**/live/{stream}/*", "/x/y/live/a/x", "a"},
		{"/*/{stream}/**", "/any/a/b", "a"},
	}
	for _, tt := range tests {
		u, err := ParseURL(tt.pattern)
		if err != nil {
			if tt.want != "" {
				t.Errorf("ParseURL(%q): %v", tt.pattern, err)
			}
			continue
		}
		got, ok := u.Stream(tt.path)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%q reads %q as %q, %v; want %q", tt.pattern, tt.path, got, ok, tt.want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"", "hls/{stream}/**", "/hls/**", "/{stream}/{stream}", "/{stream}/{stream...}", "/{name}/{stream}",
		"/{stream/**", "/{stream}?x", "/{stream}/***", "/{stream..}/x", "/{stream}\n", "/" + strings.Repeat("x", MaxPattern) + "{stream}",
	} {
		if u, err := ParseURL(pattern); err == nil {
			t.Errorf("ParseURL(%q) = %v, want an error", pattern, u)
		}
	}
}

func TestDefaultStream(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"/hls/bbc/index.m3u8":           "hls/bbc",
		"/hls/bbc/720p/seg1.ts":         "hls/bbc",
		"/hls/bbc/1080p60/seg1.ts":      "hls/bbc",
		"/hls/bbc/v0/audio/seg1.m4s":    "hls/bbc",
		"/hls/bbc/1280x720/seg1.ts":     "hls/bbc",
		"/hls/bbc/2500kbps/seg1.ts":     "hls/bbc",
		"/hls/bbc/800k/seg1.ts":         "hls/bbc",
		"/bbc/tracks-v1a1/mono.m3u8":    "bbc",
		"/bbc/tracks-1,2/index.m3u8":    "bbc",
		"/bbc/audio_en/1.ts":            "bbc",
		"/bbc/AUDIO-2/1.ts":             "bbc",
		"/bbc/subs/1.vtt":               "bbc",
		"/bbc/":                         "bbc",
		"/audio/seg1.ts":                "audio",
		"/720p/v0/seg1.ts":              "720p",
		"/720p/bbc/seg1.ts":             "720p/bbc",
		"/radio/audiobooks/seg1.aac":    "radio/audiobooks",
		"/live/stream_1/seg.ts":         "live/stream_1",
		"/live/hd/seg.ts":               "live/hd",
		"//hls//bbc//seg.ts":            "hls/bbc",
		"/a%20b/seg.ts":                 "a b",
		"/bbc.m3u8":                     "",
		"/":                             "",
		"":                              "",
		"bbc/seg.ts":                    "",
		"/free/../paid/seg.ts":          "",
		"/free/%2e%2E/paid/seg.ts":      "",
		"/free%2f..%2fpaid/seg.ts":      "",
		"/a/./b":                        "",
		"/a%00/b":                       "",
		"/a%0a/b":                       "",
		"/\xff/b":                       "",
		"/...a/..b/seg.ts":              "...a/..b",
		"/" + strings.Repeat("a/", 300): "",
	}
	for path, want := range tests {
		got, ok := DefaultStream(path)
		if ok != (want != "") || ok && got != want {
			t.Errorf("DefaultStream(%q) = %q, %v; want %q", path, got, ok, want)
		}
	}
}

func FuzzURL(f *testing.F) {
	f.Add("/hls/{stream}/**", "/hls/bbc/720p/seg1.ts")
	f.Add("/hls/x-{stream}/**", "//hls//x-bbc/")
	f.Add("/{stream}/**", "/bbc")
	f.Add("/{stream...}/index.m3u8", "/a/../b/%2e/index.m3u8")
	f.Add("/**/{stream}.m3u8", "/play/a%25%00/x.m3u8")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		check := func(how, stream string, ok bool) {
			if !ok {
				return
			}
			if stream == "" || len(stream) > 256 || !plain(stream) {
				t.Errorf("%s reads %q as %q", how, path, stream)
			}
			for element := range strings.SplitSeq(stream, "/") {
				if element == "." || element == ".." {
					t.Errorf("%s reads %q as %q", how, path, stream)
				}
			}
		}
		stream, ok := DefaultStream(path)
		check("default", stream, ok)
		if u, err := ParseURL(pattern); err == nil {
			stream, ok := u.Stream(path)
			check(pattern, stream, ok)
			u.simple = false
			if slow, found := u.Stream(path); slow != stream || found != ok {
				t.Errorf("%s reads %q as %q, %v; by its expression as %q, %v", pattern, path, stream, ok, slow, found)
			}
		}
	})
}

func BenchmarkURLStream(b *testing.B) {
	u, err := ParseURL("/hls/{stream}/**")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		u.Stream("/hls/bbc-one/720p/segment-001234.ts")
	}
}

func BenchmarkDefaultStream(b *testing.B) {
	for b.Loop() {
		DefaultStream("/hls/bbc-one/720p/segment-001234.ts")
	}
}
