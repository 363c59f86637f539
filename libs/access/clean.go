package access

import (
	"strings"
	"unicode/utf8"
)

// Caps of outside text in bytes. Longer text is cut (names, agents) or refused
// (tokens, queries) by the edge before it goes anywhere.
const (
	MaxName      = 256  // node, stream, user, device, caller's session id
	MaxPath      = 2048 // viewer's path
	MaxQuery     = 8192 // viewer's query (spec astra §5: 8 KiB)
	MaxToken     = 4096
	MaxHost      = 255
	MaxUserAgent = 512
	MaxReferer   = 2048
)

// Clean makes outside text safe to store and send: invalid UTF-8 becomes U+FFFD,
// NUL and other control characters are dropped, and the result is at most limit bytes,
// cut at a character.
func Clean(s string, limit int) string {
	if isClean(s) && len(s) <= limit {
		return s
	}
	// What lies far past the cap cannot come into the result: don't walk 1 MB for 512 bytes.
	if over := limit*4 + utf8.UTFMax; len(s) > over {
		s = s[:over]
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isClean(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}
