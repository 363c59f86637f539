package match

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"usher.internal/libs/access"
)

// URL is a pattern that reads the stream's name out of the path of a viewer's
// URL, such as "/hls/{stream}/**". `{stream}` is one path element or a part of it,
// `{stream...}` one or more elements, from which rendition folders at the end are
// dropped as DefaultStream does; exactly one of the two must stand in the
// pattern. `*` and `**` mean what they mean in a Glob. It is safe for concurrent use.
type URL struct {
	pattern string
	several bool
	// simple says that the pattern is before, {stream} and "/**", as most are: such a path is read without re.
	simple bool
	before string
	re     *regexp.Regexp // RE2: linear in the path
}

const (
	oneElement      = "{stream}"
	severalElements = "{stream...}"
)

var urlToken = regexp.MustCompile(`\{[^}]*\}|\*\*/|\*\*|\*`)

// ParseURL compiles a pattern. The error says what is wrong with it.
func ParseURL(pattern string) (*URL, error) {
	if err := checkPattern(pattern); err != nil {
		return nil, err
	}
	if pattern[0] != '/' {
		return nil, errors.New("the pattern must begin with a slash, such as /hls/{stream}/**")
	}
	if strings.ContainsAny(pattern, "?#") {
		return nil, errors.New("the pattern is for the path alone, without ? and #")
	}
	u := &URL{pattern: pattern, several: strings.Contains(pattern, severalElements)}
	names := 0
	var b strings.Builder
	b.WriteString(`^`)
	rest := pattern
	for rest != "" {
		at := urlToken.FindStringIndex(rest)
		if at == nil {
			b.WriteString(regexp.QuoteMeta(rest))
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		token := rest[at[0]:at[1]]
		wholeElement := at[0] > 0 && rest[at[0]-1] == '/'
		expr, err := urlExpression(token, wholeElement)
		if err != nil {
			return nil, err
		}
		if token[0] == '{' {
			names++
		}
		b.WriteString(expr)
		rest = rest[at[1]:]
	}
	if names != 1 {
		return nil, fmt.Errorf("the pattern must hold {stream} or {stream...} once, it holds %d of them", names)
	}
	re, err := regexp.Compile(b.String() + `$`)
	if err != nil {
		return nil, fmt.Errorf("compiling the pattern: %w", err)
	}
	u.re = re
	u.before, u.simple = strings.CutSuffix(pattern, oneElement+"/**")
	u.simple = u.simple && !urlToken.MatchString(u.before)
	return u, nil
}

// urlExpression translates one token. `**` is lazy so that {stream...} before
// and after it takes what it can.
func urlExpression(token string, wholeElement bool) (string, error) {
	switch {
	case token == oneElement:
		return `([^/]+)`, nil
	case token == severalElements:
		return `((?s:.+))`, nil
	case token == "*":
		return `[^/]*`, nil
	case token == "**":
		return `(?s:.*?)`, nil
	case token == "**/" && wholeElement:
		return `(?:(?s:.*?)/)?`, nil
	case token == "**/":
		return `(?s:.*?)/`, nil
	}
	return "", fmt.Errorf("%s is not known; there are {stream} (one path element) and {stream...} (several)", token)
}

// String is the pattern as it was written.
func (u *URL) String() string { return u.pattern }

// Stream reads the stream's name out of a path. The path is as the viewer's request line
// had it, still percent-encoded and without query. It is not ok when the
// pattern does not fit or the path is unsafe to read (see DefaultStream).
func (u *URL) Stream(path string) (stream string, ok bool) {
	clean, ok := cleanPath(path)
	if !ok {
		return "", false
	}
	_, clean = recorded(clean)
	if u.simple {
		rest, fits := strings.CutPrefix(clean, u.before)
		stream, _, ok = strings.Cut(rest, "/")
		if !fits || !ok {
			return "", false
		}
		return usable(stream)
	}
	m := u.re.FindStringSubmatchIndex(clean)
	if m == nil {
		return "", false
	}
	stream = clean[m[2]:m[3]]
	if u.several {
		stream = withoutRenditions(strings.Trim(stream, "/"))
	}
	return usable(stream)
}

// usable refuses what can't be the name of a stream.
func usable(stream string) (string, bool) {
	if stream == "" || len(stream) > access.MaxName || dotted(stream) {
		return "", false
	}
	return stream, true
}

// dotted says whether an element is "." or "..".
func dotted(path string) bool {
	for element := range strings.SplitSeq(path, "/") {
		if element == "." || element == ".." {
			return true
		}
	}
	return false
}

// CleanPath decodes a viewer's path once and merges its slashes, as every server does before it
// opens a file. It is not ok where no two servers would agree: dot elements, broken escapes,
// control characters, what is not UTF-8.
func CleanPath(path string) (string, bool) { return cleanPath(path) }

// cleanPath decodes a path once and merges its slashes, as every server does
// before it opens a file. Dot elements are refused, not resolved: players
// resolve them themselves, and "/free/../paid/x" must not be read as a stream of
// free/ while the server serves one of paid/.
func cleanPath(path string) (string, bool) {
	if len(path) > access.MaxPath || path == "" || path[0] != '/' {
		return "", false
	}
	if strings.IndexByte(path, '%') >= 0 {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return "", false
		}
		path = decoded
	}
	if !plain(path) || strings.ContainsRune(path, utf8.RuneError) {
		return "", false
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path, !dotted(path)
}
