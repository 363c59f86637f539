package flussonic

import (
	"strconv"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// archive says whether the archive is asked for, and which part of it. media_request of
// the second generation ends in start and duration, in the start alone, or in how far back
// (spec flussonic §9); dvr of the third says only that it is the archive.
func (f fields) archive() (access.Archive, error) {
	text := f["media_request"]
	parts := strings.Split(text, "-")
	last, before := number(parts, 1), number(parts, 2)
	switch {
	case strings.HasPrefix(text, "dvr_") && parts[len(parts)-1] == "now" && before >= 0:
		return access.Archive{Kind: access.From, Start: before}, nil
	case strings.Contains(text, "timeshift_rel") && last >= 0:
		return access.Archive{Kind: access.Back, Length: last}, nil
	case strings.Contains(text, "timeshift_abs") && last >= 0:
		return access.Archive{Kind: access.From, Start: last}, nil
	case strings.HasPrefix(text, "dvr_") && last >= 0 && before >= 0:
		return access.Archive{Kind: access.Range, Start: before, Length: last}, nil
	case strings.HasPrefix(text, "dvr_"), strings.Contains(text, "timeshift"):
		return access.Archive{Kind: access.Unknown}, nil
	}
	switch f["dvr"] {
	case "", "false", "0":
		return access.Archive{}, nil
	case "true", "1":
		return access.Archive{Kind: access.Unknown}, nil
	}
	return access.Archive{}, caller.Badf("dvr is neither true nor false")
}

// number is the part at this place from the end as seconds, -1 if it is none.
func number(parts []string, fromEnd int) int64 {
	if len(parts) < fromEnd {
		return -1
	}
	n, err := strconv.ParseUint(parts[len(parts)-fromEnd], 10, 40)
	if err != nil {
		return -1
	}
	return int64(n)
}
