package caller

import (
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"usher.internal/libs/access"
)

// Place is where a token or a device id stands in the viewer's request.
type Place struct {
	kind  placeKind
	name  string // of a parameter, header or cookie
	index int    // of a path element, from 1
}

type placeKind uint8

const (
	inQuery placeKind = iota
	inHeader
	inCookie
	inPath
)

// Viewer is what the viewer sent, as its caller passed it on.
type Viewer struct {
	Path, Query string // as in the request line; Query has passed CheckQuery
	Header      http.Header
}

// ParsePlace reads "query:NAME", "header:NAME", "cookie:NAME" or "path:N".
func ParsePlace(text string) (Place, error) {
	kind, name, ok := strings.Cut(text, ":")
	if !ok || name == "" {
		return Place{}, fmt.Errorf("place %q: want query:NAME, header:NAME, cookie:NAME or path:NUMBER", text)
	}
	switch kind {
	case "query":
		return Place{kind: inQuery, name: name}, nil
	case "header":
		return Place{kind: inHeader, name: textproto.CanonicalMIMEHeaderKey(name)}, nil
	case "cookie":
		return Place{kind: inCookie, name: name}, nil
	case "path":
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || n > 64 {
			return Place{}, fmt.Errorf("place %q: the number of a path element is 1 to 64", text)
		}
		return Place{kind: inPath, index: n}, nil
	}
	return Place{}, fmt.Errorf("place %q: %q is not known; there are query, header, cookie and path", text, kind)
}

// Find returns what stands in the place, decoded, "" if nothing does. what names
// it in errors. Whatever stands there twice, or in a form that another program
// would read differently, is a *Bad.
func (p Place) Find(what string, v *Viewer, limit int) (string, error) {
	var value string
	var err error
	switch p.kind {
	case inQuery:
		value, err = parameter(v.Query, p.name)
	case inHeader:
		value, err = One(v.Header, p.name)
		if p.name == "Authorization" && len(value) > 7 && strings.EqualFold(value[:7], "bearer ") {
			value = strings.TrimLeft(value[7:], " ")
		}
	case inCookie:
		value, err = cookie(v.Header, p.name)
	case inPath:
		value, err = element(v.Path, p.index)
	}
	if err != nil {
		return "", err
	}
	return Strict(what, value, limit)
}

// FindToken returns the token from the first place that holds one, "" if none does.
func FindToken(places []Place, v *Viewer) (string, error) {
	for _, p := range places {
		token, err := p.Find("the token", v, access.MaxToken)
		if err != nil || token != "" {
			return token, err
		}
	}
	return "", nil
}

// CheckQuery refuses a query that is too long, holds control characters or is
// not UTF-8, or is wrongly percent-encoded: nobody could say how the servers
// behind would read it.
func CheckQuery(query string) error {
	if len(query) > access.MaxQuery {
		return Badf("the query is longer than %d bytes", access.MaxQuery)
	}
	if _, err := Strict("the query", query, access.MaxQuery); err != nil {
		return err
	}
	for i := strings.IndexByte(query, '%'); i >= 0 && i < len(query); i++ {
		if query[i] == '%' && (i+2 >= len(query) || !hex(query[i+1]) || !hex(query[i+2])) {
			return Badf("the query is not correctly percent-encoded")
		}
	}
	return nil
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// parameter finds the one value of a parameter. PHP would take the last of two
// and Go the first, and PHP reads `token[]`, ` token` and, for a name with an
// underscore, `my.token` as the name too: all of these are refused, so that what we
// judge is what a middleware behind us judges (spec astra §2.2).
func parameter(query, name string) (value string, err error) {
	found := false
	for rest := query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, val, _ := strings.Cut(pair, "=")
		if key, err = decode(key); err != nil {
			return "", err
		}
		if key != name {
			if strings.IndexByte(key, 0) >= 0 || phpName(key) == phpName(name) {
				return "", Badf("parameter %q stands in the query in an ambiguous form", name)
			}
			continue
		}
		if found {
			return "", Badf("parameter %q stands in the query twice", name)
		}
		found = true
		if value, err = decode(val); err != nil {
			return "", err
		}
	}
	return value, nil
}

func decode(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	out, err := url.QueryUnescape(s)
	if err != nil {
		return "", Badf("the query is not correctly percent-encoded")
	}
	return out, nil
}

// phpName is the name under which PHP would store a parameter.
func phpName(name string) string {
	name = strings.TrimLeft(name, " ")
	if i := strings.IndexByte(name, '['); i > 0 {
		name = name[:i]
	}
	if !strings.ContainsAny(name, ". ") {
		return name
	}
	return strings.NewReplacer(".", "_", " ", "_").Replace(name)
}

func cookie(h http.Header, name string) (value string, err error) {
	found := false
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			key, val, _ := strings.Cut(strings.TrimSpace(part), "=")
			if key != name {
				continue
			}
			if found {
				return "", Badf("cookie %q was sent twice", name)
			}
			found, value = true, strings.Trim(val, `"`)
		}
	}
	return value, nil
}

func element(path string, index int) (string, error) {
	rest := strings.TrimLeft(path, "/")
	for range index - 1 {
		_, after, ok := strings.Cut(rest, "/")
		if !ok {
			return "", nil
		}
		rest = strings.TrimLeft(after, "/")
	}
	part, _, _ := strings.Cut(rest, "/")
	out, err := url.PathUnescape(part)
	if err != nil {
		return "", Badf("the path is not correctly percent-encoded")
	}
	return out, nil
}
