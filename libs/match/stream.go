package match

import (
	"regexp"
	"strings"
)

// rendition is the closed set of folder names that packagers give to the parts of one
// stream, in lower or upper case:
//
//	720p 1080p60 576i        resolution, with frame rate
//	1280x720                 width and height
//	800k 2500kbps            bit rate
//	v0 v12                   variant (ffmpeg, Shaka, GStreamer)
//	audio video subs subtitles, also audio1, audio_en, audio-2
//	tracks-v1a1 tracks-1,2   tracks (Flussonic, nginx-vod)
//
// Words such as hd, low or stream_0 are not in it: they are names of channels too,
// and two channels read as one would be worse than one read as two.
var rendition = regexp.MustCompile(`(?i)^(?:` +
	`[0-9]{3,4}[pi][0-9]{0,3}` + `|` +
	`[0-9]{2,5}x[0-9]{2,5}` + `|` +
	`[0-9]{2,6}k(?:bps)?` + `|` +
	`v[0-9]{1,3}` + `|` +
	`(?:audio|video|subs|subtitles)(?:[0-9]{1,3}|[_-][a-z0-9]{1,8})?` + `|` +
	`tracks-[a-z0-9,]{1,32}` +
	`)$`)

// DefaultStream reads the stream's name out of a path in the way that serves most
// HLS and DASH folders: the path without its last element, without the rendition
// folders at its end and without the leading slash, so that renditions and
// segments are one session: "/hls/bbc/720p/seg1.ts" is "hls/bbc". A rendition
// folder that is all there is stays: "/audio/seg1.ts" is "audio". Folders that name a
// part of the archive are dropped too (Archive), so that live and archive are one stream.
//
// The path is as the viewer's request line had it, still percent-encoded and without
// query; it is decoded once here. It is not ok where no name is left ("/bbc.m3u8"),
// where the name is longer than access.MaxName, and where the path is unsafe to
// read: no leading slash, dot elements, bad escapes, control characters, not UTF-8.
func DefaultStream(path string) (stream string, ok bool) {
	clean, ok := cleanPath(path)
	if !ok {
		return "", false
	}
	_, clean = recorded(clean)
	return usable(withoutRenditions(strings.Trim(clean[:strings.LastIndexByte(clean, '/')], "/")))
}

// withoutRenditions drops rendition folders from the end, but not the last element left.
func withoutRenditions(stream string) string {
	for {
		i := strings.LastIndexByte(stream, '/')
		if i <= 0 || !rendition.MatchString(stream[i+1:]) {
			return stream
		}
		stream = stream[:i]
	}
}
