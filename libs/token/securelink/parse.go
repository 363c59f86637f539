package securelink

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"usher.internal/libs/match"
	"usher.internal/libs/token"
)

const (
	hashLength = 22 // unpadded base64url of 16 bytes
	timeDigits = 10
)

// link is a link that has the scheme's form.
type link struct {
	hash    [16]byte
	text    string // the hash in its one canonical form
	expires string // as it stands, "" if links do not end
	path    string // what is signed of the path, before anything is cut off
	whole   string // the whole path, decoded
}

// read takes the proof out of a question. It is token.ErrNotMine where there is none, and a
// denial where it can belong to nobody.
func (v *Verifier) read(q *token.Question) (link, error) {
	var l link
	var hash string
	l.whole, _ = match.CleanPath(q.Path)
	l.path = l.whole
	if v.layout != nil {
		var ok bool
		if hash, l.expires, l.path, ok = v.layout.read(l.whole); !ok {
			return l, token.ErrNotMine
		}
	} else {
		a := argument(q.Query, v.md5)
		if !a.found {
			return l, token.ErrNotMine
		}
		e := argument(q.Query, v.expires)
		if a.twice || e.twice {
			return l, bad("the link's hash or time stands in the query twice")
		}
		hash, l.expires = a.value, e.value
	}
	// One link has one text: nginx takes padding, and the four bits that base64 leaves
	// unused, in any form, and a viewer could count as sixty-four.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(hash, "="))
	if err != nil || len(raw) != len(l.hash) {
		return l, bad("the link's hash is no base64url of 16 bytes")
	}
	l.hash = [16]byte(raw)
	l.text = hash[:hashLength]
	if v.opts.Expires != "" && (len(l.expires) != timeDigits || !isDigits(l.expires)) {
		return l, bad("the link's end is no time in seconds of ten digits")
	}
	return l, nil
}

// found is an argument of the query, as it stands there: nginx does not decode it.
type found struct {
	value        string
	found, twice bool
}

// argument finds an argument as nginx does: its name in any case. name is in lower case, ""
// finds nothing.
func argument(query, name string) found {
	var f found
	for query != "" && name != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, ok := strings.Cut(pair, "=")
		if !ok || !strings.EqualFold(key, name) {
			continue
		}
		if f.found {
			f.twice = true
			return f
		}
		f.value, f.found = value, true
	}
	return f
}

// old reads the form of secure_link_secret, /prefix/HASH/link, out of the path as it was sent.
func old(path string) (hash [16]byte, rest string, ok bool) {
	elements := strings.SplitN(path, "/", 4)
	if len(elements) != 4 || elements[0] != "" || elements[3] == "" || len(elements[2]) != 2*len(hash) {
		return hash, "", false
	}
	if _, err := hex.Decode(hash[:], []byte(elements[2])); err != nil {
		return hash, "", false
	}
	return hash, elements[3], true
}

// layout is where hash and time stand in a path: elements, and then the signed rest.
type layout []string

const (
	layoutHash    = "{md5}"
	layoutExpires = "{expires}"
	layoutRest    = "{path}"
)

func checkLayout(text string, expires bool) error {
	l, ok := parseLayout(text)
	switch {
	case !ok:
		return errors.New(`want elements and the signed rest at the end, such as "/{md5}/{expires}{path}"`)
	case count(l, layoutHash) != 1:
		return errors.New("want {md5} once")
	case count(l, layoutExpires) > 1 || expires != (count(l, layoutExpires) == 1):
		return fmt.Errorf("{expires} stands in it %d times, and expires is set: %t", count(l, layoutExpires), expires)
	}
	for _, e := range l {
		if e != layoutHash && e != layoutExpires && strings.ContainsAny(e, "{}*%?#") {
			return fmt.Errorf("an element is {md5}, {expires} or plain text, not %q", e)
		}
	}
	return nil
}

func count(l layout, element string) int {
	n := 0
	for _, e := range l {
		if e == element {
			n++
		}
	}
	return n
}

func parseLayout(text string) (layout, bool) {
	head, ok := strings.CutSuffix(text, layoutRest)
	if !ok || len(head) < 2 || head[0] != '/' {
		return nil, false
	}
	return strings.Split(strings.TrimSuffix(head[1:], "/"), "/"), true
}

// read splits a path; rest begins with the slash behind the last element.
func (l layout) read(path string) (hash, expires, rest string, ok bool) {
	rest = path
	for _, want := range l {
		if rest == "" {
			return "", "", "", false
		}
		var element string
		element, rest = rest[1:], ""
		if at := strings.IndexByte(element, '/'); at >= 0 {
			element, rest = element[:at], element[at:]
		}
		switch want {
		case layoutHash:
			hash = element
		case layoutExpires:
			expires = element
		default:
			if element != want {
				return "", "", "", false
			}
		}
	}
	return hash, expires, rest, rest != "" && hash != ""
}

// write is the inverse of read.
func (l layout) write(hash, expires, rest string) string {
	var b strings.Builder
	for _, e := range l {
		switch e {
		case layoutHash:
			e = hash
		case layoutExpires:
			e = expires
		}
		b.WriteString("/" + e)
	}
	return b.String() + rest
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
