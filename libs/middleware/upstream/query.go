package upstream

import (
	"strings"

	"usher.internal/libs/access"
)

// Clean says whether a query can stand in a request line as it is.
func Clean(q string) bool {
	if len(q) > access.MaxQuery {
		return false
	}
	for i := range len(q) {
		if q[i] <= ' ' || q[i] == 0x7f {
			return false
		}
	}
	return true
}

// Join puts own and then the viewer's parameters, whose bytes stay as they are. Those
// of the viewer's that bear a name of own are left out: most upstreams take the last
// of equal names, so that he would replace ours.
func Join(own, viewer string) string {
	return join(own, Without(viewer, names(own)...))
}

// Append puts the viewer's parameters and then ours, which replace those of the same
// name.
func Append(viewer, ours string) string {
	return join(Without(viewer, names(ours)...), ours)
}

func join(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + "&" + b
}

// Without leaves out every parameter that some upstream could take for one of the
// names, however often it stands there and however it is written; all other bytes
// stay.
func Without(query string, names ...string) string {
	if query == "" || len(names) == 0 {
		return query
	}
	var b strings.Builder
	b.Grow(len(query))
	left := false // a parameter was left out, and its separator goes with it
	for rest, begin := query, true; ; begin = false {
		end := strings.IndexAny(rest, "&;")
		pair := rest
		if end >= 0 {
			pair = rest[:end]
		}
		if named(pair, names) {
			left = true
		} else {
			if !begin && (b.Len() > 0 || !left) {
				b.WriteByte(query[len(query)-len(rest)-1])
			}
			b.WriteString(pair)
		}
		if end < 0 {
			return b.String()
		}
		rest = rest[end+1:]
	}
}

func named(pair string, names []string) bool {
	if pair == "" {
		return false
	}
	name := Name(pair)
	for _, n := range names {
		if strings.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// names are those of all parameters of a query.
func names(query string) []string {
	var all []string
	for pair := range strings.SplitSeq(query, "&") {
		if name := Name(pair); name != "" {
			all = append(all, name)
		}
	}
	return all
}

// Name is the name of a parameter as the most generous reader sees it: percent
// signs and plus decoded, without spaces before it, ended by NUL, and an array
// (name[], name[x]) by the name of the array. These are PHP's rules; others let
// less pass for a name.
func Name(pair string) string {
	raw, _, _ := strings.Cut(pair, "=")
	name := strings.TrimLeft(Unescape(raw), " \t\r\n\v\f")
	if i := strings.IndexAny(name, "[\x00"); i > 0 {
		name = name[:i]
	}
	return strings.TrimRight(name, " \t\r\n\v\f")
}

// Values are the raw values of every parameter of that name, and whether each is
// written plainly: the name's own bytes before an equals sign.
func Values(query, name string) (raw []string, plain bool) {
	plain = true
	for _, pair := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) {
		if !strings.EqualFold(Name(pair), name) {
			continue
		}
		written, value, equals := strings.Cut(pair, "=")
		plain = plain && equals && written == name
		raw = append(raw, value)
	}
	return raw, plain
}

// Unescape decodes percent signs and plus. What is no escape stays as it is, as PHP
// and Python have it: refusing would be for the upstream to say.
func Unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b = append(b, ' ')
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
