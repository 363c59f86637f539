package caller

import (
	"encoding/json"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
)

const (
	// maxReason is the longest word for why a session ended.
	maxReason = 64
	maxTotal  = 1 << 56
	// maxPlaying is the longest that a session can have played.
	maxPlaying = 366 * 24 * time.Hour
)

// Text is the first of the fields that is there, as text; "" if none is, or if it is a list or an object.
func (f Facts) Text(names ...string) string {
	for _, name := range names {
		switch v := f[name].(type) {
		case string:
			if v != "" {
				return v
			}
		case json.Number:
			return v.String()
		case bool:
			return strconv.FormatBool(v)
		}
	}
	return ""
}

// Label is Text for what is only shown.
func (f Facts) Label(limit int, names ...string) string { return access.Clean(f.Text(names...), limit) }

// Name is Text for an identity: false where it cannot be one.
func (f Facts) Name(names ...string) (string, bool) {
	name, err := Strict("", f.Text(names...), access.MaxName)
	return name, err == nil
}

// number is the first of the fields that is a number, also one in quotes.
func (f Facts) number(names ...string) (float64, bool) {
	for _, name := range names {
		var text string
		switch v := f[name].(type) {
		case string:
			text = v
		case json.Number:
			text = v.String()
		default:
			continue
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
			return n, true
		}
	}
	return 0, false
}

// Total is a count that only rises, 0 if it is none.
func (f Facts) Total(names ...string) int64 {
	n, _ := f.number(names...)
	if n < 0 || n > maxTotal {
		return 0
	}
	return int64(n)
}

// Seconds is a duration, 0 if it is none.
func (f Facts) Seconds(names ...string) time.Duration {
	n, _ := f.number(names...)
	if n < 0 || n > maxPlaying.Seconds() {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}

// Units of a time as a number, told apart by size: as seconds these would be far in the future, and the finer unit would
// have been the 1970s.
const (
	asMillis = 1e11
	asMicros = 1e14
)

// Time reads seconds, milliseconds or microseconds since 1970, or RFC 3339; zero if it is none.
func (f Facts) Time(names ...string) time.Time {
	for _, name := range names {
		if n, ok := f.number(name); ok && n > 0 {
			switch {
			case n >= asMicros:
				n /= 1e6
			case n >= asMillis:
				n /= 1e3
			}
			if n < asMillis {
				return time.UnixMicro(int64(n * 1e6))
			}
			continue
		}
		if at, err := time.Parse(time.RFC3339, f.Text(name)); err == nil {
			return at
		}
	}
	return time.Time{}
}

// IP is the viewer's address, also one with a port; the zero Addr if it is none.
func (f Facts) IP(names ...string) netip.Addr {
	text := f.Text(names...)
	if ip, err := netip.ParseAddr(text); err == nil {
		return Plain(ip)
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return Plain(ap.Addr())
	}
	return netip.Addr{}
}

// Country is an ISO 3166 code, "" if it is none.
func (f Facts) Country(names ...string) string {
	c := strings.ToUpper(f.Text(names...))
	if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
		return ""
	}
	return c
}

// Reason is a word for why something ended. Where the field is an object it is the one of its
// fields that looks like a code, else the first text by name.
func (f Facts) Reason(name string) string {
	text := f.Text(name)
	if o, ok := f[name].(map[string]any); ok {
		in := Facts(o)
		if text = in.Text("code", "type", "reason", "name", "status"); text == "" {
			keys := make([]string, 0, len(o))
			for k := range o {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			text = in.Text(keys...)
		}
	}
	return word(text)
}

// word keeps what can stand in a code: a free text could hold an address or a token.
func word(text string) string {
	text = access.Clean(text, maxReason)
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-', r == '.', r == ' ', r == ':', r == '/':
			return r
		}
		return '_'
	}, text)
}
