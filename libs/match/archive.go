package match

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
)

// How Flussonic's archive is asked for (spec flussonic §9). Words and numbers are a closed set:
// files of other servers that only look alike must not be taken for an archive.
var (
	// archive-F-D.m3u8 archive-F-now.mpd index-F-D.m3u8 mono-F-D.m3u8 video-F-D.fmp4.m3u8
	archiveList = regexp.MustCompile(`^(?:archive|index|mono|video|audio|master)-([0-9]{9,12})-([0-9]{1,12}|now)(?:\.(?:fmp4|ll))?\.(?:m3u8|mpd|json|f4m)$`)
	archiveFile = regexp.MustCompile(`^archive-([0-9]{9,12})-([0-9]{1,12}|now)\.(?:mp4|ts|fmp4|m4s|mkv|mov)$`)
	// timeshift_abs-F.m3u8 timeshift_abs_mono-F.m3u8 timeshift_rel-R.ts rewind-R.m3u8
	shifted = regexp.MustCompile(`^(timeshift_abs|timeshift_rel|rewind)(?:_[a-z0-9_]+)?-([0-9]{1,12})(?:\.[a-z0-9.]+)?$`)
	// F.jpg F-preview.jpg F-preview.mp4
	picture = regexp.MustCompile(`^([0-9]{10})(?:\.jpg|-preview\.jpg|-preview\.mp4)$`)
	// archive/F/D/mpegts, and timeshift_rel/R
	archiveFolders = regexp.MustCompile(`/archive/([0-9]{10})/([0-9]{1,12}|now)/[^/]+$`)
	shiftFolder    = regexp.MustCompile(`/(timeshift_abs|timeshift_rel)/([0-9]{1,12})$`)
	// 2024/03/09/18/46/40-06000.ts
	piece = regexp.MustCompile(`/([0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{2}/[0-9]{2}/[0-9]{2})-([0-9]{5,6})\.[a-z0-9.]+$`)
	// bbc(archive=F-D).isml/manifest
	smooth = regexp.MustCompile(`\(archive=([0-9]{9,12})-([0-9]{1,12}|now)\)`)
	// archiveLike is what asks for the archive in a way that is not understood.
	archiveLike = regexp.MustCompile(`^(?:archive-[0-9]|timeshift_(?:abs|rel)|rewind-)`)
)

// Archive says which recorded part of a stream a path asks for, as Flussonic's addresses do; the
// zero Archive is the live stream. The path is as in DefaultStream. What looks like
// a way into the archive but is not understood is access.Unknown.
func Archive(path string) access.Archive {
	clean, ok := cleanPath(path)
	if !ok {
		return access.Archive{}
	}
	a, _ := recorded(clean)
	return a
}

// recorded reads a clean path, and gives that of the live stream: the same without the folders
// that name a time.
func recorded(path string) (a access.Archive, live string) {
	at := strings.LastIndexByte(path, '/')
	last := path[at+1:]
	if strings.Contains(path, "(archive=") {
		if m := smooth.FindStringSubmatchIndex(path); m != nil {
			return part(path[m[2]:m[3]], path[m[4]:m[5]]), path[:m[0]] + path[m[1]:]
		}
	}
	if !mayBeRecorded(path, last) {
		return access.Archive{}, path
	}
	if m := piece.FindStringSubmatchIndex(path); m != nil && m[0] > 0 {
		if a, ok := pieceOf(path[m[2]:m[3]], path[m[4]:m[5]]); ok {
			return a, path[:m[0]] + path[strings.LastIndexByte(path, '/'):]
		}
	}
	if m := archiveFolders.FindStringSubmatchIndex(path); m != nil && m[0] > 0 {
		return part(path[m[2]:m[3]], path[m[4]:m[5]]), path[:m[0]] + path[at:]
	}
	if m := shiftFolder.FindStringSubmatchIndex(path); m != nil && m[0] > 0 {
		return shift(path[m[2]:m[3]], path[m[4]:m[5]]), path[:m[0]] + path[at:]
	}
	return recordedFile(last), path
}

// mayBeRecorded is a cheap look that spares almost all live paths the rest.
func mayBeRecorded(path, last string) bool {
	if strings.HasPrefix(last, "timeshift_") || strings.HasPrefix(last, "rewind-") || strings.HasPrefix(last, "archive-") {
		return true
	}
	digits := 0
	for i := range len(last) {
		if last[i] < '0' || last[i] > '9' {
			digits = 0
		} else if digits++; digits == 5 { // the length of a piece; a time has ten
			return true
		}
	}
	return strings.Contains(path, "/archive/") || strings.Contains(path, "/timeshift_")
}

// recordedFile reads the last element of a path.
func recordedFile(last string) access.Archive {
	for _, form := range []*regexp.Regexp{archiveList, archiveFile} {
		if m := form.FindStringSubmatch(last); m != nil {
			return part(m[1], m[2])
		}
	}
	if m := shifted.FindStringSubmatch(last); m != nil {
		return shift(m[1], m[2])
	}
	if m := picture.FindStringSubmatch(last); m != nil {
		return part(m[1], "1")
	}
	if archiveLike.MatchString(last) {
		return access.Archive{Kind: access.Unknown}
	}
	return access.Archive{}
}

// part is a start and a duration; `now` goes on until now.
func part(from, length string) access.Archive {
	start, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return access.Archive{Kind: access.Unknown}
	}
	if length == "now" {
		return access.Archive{Kind: access.From, Start: start}
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return access.Archive{Kind: access.Unknown}
	}
	return access.Archive{Kind: access.Range, Start: start, Length: n}
}

// shift is a start, or how far back.
func shift(word, number string) access.Archive {
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil:
		return access.Archive{Kind: access.Unknown}
	case word == "timeshift_abs":
		return access.Archive{Kind: access.From, Start: n}
	}
	return access.Archive{Kind: access.Back, Length: n}
}

// pieceOf is a segment that is named by its time (UTC) and its length in milliseconds.
func pieceOf(at, millis string) (access.Archive, bool) {
	t, err := time.Parse("2006/01/02/15/04/05", at)
	if err != nil || t.Unix() < 0 {
		return access.Archive{}, false
	}
	ms, err := strconv.ParseInt(millis, 10, 64)
	if err != nil {
		return access.Archive{}, false
	}
	return access.Archive{Kind: access.Piece, Start: t.Unix(), Length: (ms + 999) / 1000}, true
}
