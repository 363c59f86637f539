package match

import (
	"strings"
	"testing"

	"usher.internal/libs/access"
)

// TestArchive walks the addresses of spec flussonic §9: which part, and the same stream as live.
func TestArchive(t *testing.T) {
	t.Parallel()
	const f, d, piece = 1710010000, 3600, 1710010000
	ranged := access.Archive{Kind: access.Range, Start: f, Length: d}
	from := access.Archive{Kind: access.From, Start: f}
	back := access.Archive{Kind: access.Back, Length: 600}
	picture := access.Archive{Kind: access.Range, Start: f, Length: 1}
	unknown := access.Archive{Kind: access.Unknown}
	for path, want := range map[string]access.Archive{
		"/bbc/index.m3u8":                                 {},
		"/bbc/mono.m3u8":                                  {},
		"/bbc/mpegts":                                     {},
		"/bbc/tracks-1,2/index.m3u8":                      {},
		"/bbc/preview.jpg":                                {},
		"/bbc/seg-1710010000-3600.ts":                     {},
		"/bbc/chunk_1710010000_00001.m4s":                 {},
		"/bbc/segment12345.ts":                            {},
		"/bbc/1710010000.ts":                              {},
		"/bbc/index-1710010000-3600.ts":                   {}, // no list: a segment may be called so
		"/bbc/index-1710010000-3600.m3u8":                 ranged,
		"/bbc/tracks-1,2/index-1710010000-3600.m3u8":      ranged,
		"/bbc/mono-1710010000-3600.m3u8":                  ranged,
		"/bbc/video-1710010000-3600.fmp4.m3u8":            ranged,
		"/bbc/archive-1710010000-3600.m3u8":               ranged,
		"/bbc/archive-1710010000-3600.mpd":                ranged,
		"/bbc/archive-1710010000-3600.mp4":                ranged,
		"/bbc/archive-1710010000-3600.ts":                 ranged,
		"/bbc/archive-1710010000-3600.json":               ranged,
		"/bbc/archive%2D1710010000-3600.ts":               ranged,
		"/bbc/archive-1710010000-now.m3u8":                from,
		"/bbc/archive/1710010000/3600/mpegts":             ranged,
		"/bbc/archive/1710010000/3600/bootstrap":          ranged,
		"/bbc/archive/1710010000/now/mpegts":              from,
		"/bbc/timeshift_abs-1710010000.ts":                from,
		"/bbc/timeshift_abs-1710010000.m3u8":              from,
		"/bbc/timeshift_abs_mono-1710010000.m3u8":         from,
		"/bbc/tracks-1/timeshift_abs-1710010000.m3u8":     from,
		"/bbc/timeshift_abs/1710010000":                   from,
		"/bbc/timeshift_rel-600.m3u8":                     back,
		"/bbc/timeshift_rel/600":                          back,
		"/bbc/rewind-600.m3u8":                            back,
		"/bbc/rewind-600.mpd":                             back,
		"/bbc(archive=1710010000-3600)/manifest":          ranged,
		"/bbc(archive=1710010000-now)/manifest":           from,
		"/bbc/1710010000.jpg":                             picture,
		"/bbc/1710010000-preview.jpg":                     picture,
		"/bbc/1710010000-preview.mp4":                     picture,
		"/bbc/timeshift_rel-now.m3u8":                     unknown,
		"/bbc/timeshift_abs.m3u8":                         unknown,
		"/bbc/archive-1710010000-later.m3u8":              unknown,
		"/bbc/archive-17100100009999999-3600.m3u8":        unknown,
		"/bbc/rewind-99999999999999999999.m3u8":           unknown,
		"/bbc/2024/03/09/18/46/40-06000.ts":               {Kind: access.Piece, Start: piece, Length: 6},
		"/bbc/tracks-v1a1/2024/03/09/18/46/40-06001.ts":   {Kind: access.Piece, Start: piece, Length: 7},
		"/bbc/tracks-v1a1/2024/03/09/18/46/40-06001.fmp4": {Kind: access.Piece, Start: piece, Length: 7},
	} {
		if got := Archive(path); got != want {
			t.Errorf("%s is read as %+v, want %+v", path, got, want)
		}
		if stream, ok := DefaultStream(path); !ok || stream != "bbc" {
			t.Errorf("%s is stream %q, %v; want bbc", path, stream, ok)
		}
	}
	if got := Archive("/bbc(archive=1710010000-3600).isml/manifest"); got != ranged {
		t.Errorf("Smooth Streaming is read as %+v, want %+v", got, ranged)
	}
	live, _ := DefaultStream("/bbc.isml/manifest")
	if stream, _ := DefaultStream("/bbc(archive=1710010000-3600).isml/manifest"); stream != live {
		t.Errorf("Smooth Streaming is stream %q from the archive and %q live", stream, live)
	}
	u, err := ParseURL("/{stream...}/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bbc/archive/1710010000/3600/mpegts", "/bbc/timeshift_rel/600", "/bbc/2024/03/09/18/46/40-06000.ts"} {
		if stream, ok := u.Stream(path); !ok || stream != "bbc" {
			t.Errorf("%s is stream %q, %v by %s; want bbc", path, stream, ok, u)
		}
	}
}

// FuzzArchive holds for every path: no panic, numbers that can be counted with, and a path of
// which the same is read when it is read again.
func FuzzArchive(f *testing.F) {
	for _, path := range []string{"/bbc/archive-1710010000-3600.m3u8", "/bbc/archive/1710010000/now/mpegts", "/bbc/timeshift_rel/600",
		"/b(archive=1710010000-3600).isml/manifest", "/bbc/2024/03/09/18/46/40-06000.ts", "/a/(archive=1-2)(archive=1710010000-3600)"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		a := Archive(path)
		if a.Start < 0 || a.Length < 0 || a.Start > 1e13 || a.Length > 1e13 || a.Since != 0 {
			t.Errorf("%q is read as %+v", path, a)
		}
		if stream, ok := DefaultStream(path); ok && (stream == "" || strings.Contains("/"+stream+"/", "/../")) {
			t.Errorf("%q is stream %q", path, stream)
		}
	})
}
