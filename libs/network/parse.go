package network

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"

	"usher.internal/libs/config"
)

// maxLine is the longest line; an address with its prefix has at most 43 bytes, the rest
// is for a comment.
const maxLine = 4096

// Parse reads one network a line, as config.ParsePrefix reads it; `#` begins a comment.
// Lines that hold something else are left out and their numbers returned, in order: what
// stands in them is not told, as the file may be another than was meant.
func Parse(text []byte) (prefixes []netip.Prefix, bad []int) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, err := config.ParsePrefix(line)
		if err != nil {
			bad = append(bad, n)
			continue
		}
		prefixes = append(prefixes, p)
	}
	if lines.Err() != nil { // a line that is too long: nothing behind it can be told apart
		bad = append(bad, n+1)
	}
	return prefixes, bad
}
