package securetoken

import (
	"encoding/hex"
	"net/url"
	"strings"
)

// Caps of the fields in bytes. The fields behind the secret are checked against
// a strict alphabet before anything is hashed: SHA-1 with the secret in front of
// text that a viewer chooses could be extended, but only with padding bytes that
// stand outside these alphabets (spec callers §4.17).
const (
	hashDigits  = 40
	timeDigits  = 10
	maxSalt     = 64
	maxUser     = 64
	maxReadings = 3
	maxToken    = hashDigits + 1 + maxSalt + 1 + timeDigits + 1 + timeDigits + 1 + maxUser
)

// fields is one way to read what follows the hash.
type fields struct {
	salt, user string // user is "" if the token has no fifth field
	start, end string // as they stand, for the sum
}

// parsed is a token that has the scheme's form.
type parsed struct {
	hash     [20]byte
	readings [maxReadings]fields
	n        int
}

// parse reads HASH-SALT-END-START[-USER]. Salt and user may hold "-", so every
// place where END-START can stand gives a reading; the secret tells which one was
// meant. It says false for any other form, and for more than maxReadings of them.
func parse(token string) (parsed, bool) {
	var p parsed
	if len(token) > maxToken || len(token) < hashDigits+2 || token[hashDigits] != '-' {
		return p, false
	}
	if _, err := hex.Decode(p.hash[:], []byte(token[:hashDigits])); err != nil {
		return p, false
	}
	rest := token[hashDigits+1:]
	const times = 1 + timeDigits + 1 + timeDigits
	for i := 1; i+times <= len(rest); i++ {
		tail := rest[i+times:]
		if !isTimes(rest[i:i+times]) || (tail != "" && tail[0] != '-') {
			continue
		}
		f := fields{salt: rest[:i], end: rest[i+1 : i+1+timeDigits], start: rest[i+2+timeDigits : i+times]}
		if tail != "" {
			f.user = tail[1:]
		}
		if !isSalt(f.salt) || (tail != "" && !isUser(f.user)) {
			continue
		}
		if p.n == maxReadings {
			return p, false
		}
		p.readings[p.n] = f
		p.n++
	}
	return p, p.n > 0
}

// isTimes says whether s is "-", ten digits, "-", ten digits.
func isTimes(s string) bool {
	return s[0] == '-' && s[1+timeDigits] == '-' && isDigits(s[1:1+timeDigits]) && isDigits(s[2+timeDigits:])
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isSalt(s string) bool { return s != "" && len(s) <= maxSalt && within(s, "_.~+/=-") }

func isUser(s string) bool { return s != "" && len(s) <= maxUser && within(s, "_.~+=@:-") }

// within says whether s holds only letters, digits and the given marks.
func within(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return true
}

// unixTime reads decimal digits, which parse has checked.
func unixTime(digits string) int64 {
	var n int64
	for i := range len(digits) {
		n = n*10 + int64(digits[i]-'0')
	}
	return n
}

// extras is what the viewer's query may add to a token.
type extras struct {
	user      string // user_id, if it stands there once and is well formed
	badUser   bool   // user_id stands there twice with different values, or is malformed
	noCheckIP bool   // remote=no_check_ip; every other value of remote means nothing
}

// readExtras looks for user_id and remote in a raw query.
func readExtras(query string) extras {
	var e extras
	seen := false
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		switch unescape(key) {
		case "remote":
			e.noCheckIP = e.noCheckIP || unescape(value) == noCheckIP
		case "user_id":
			user := unescape(value)
			if user == "" {
				continue // an empty field of a form names nobody
			}
			e.badUser = e.badUser || !isUser(user) || (seen && user != e.user)
			e.user, seen = user, true
		}
	}
	if e.badUser {
		e.user = ""
	}
	return e
}

// unescape decodes a part of a query; what cannot be decoded stays as it is.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if d, err := url.QueryUnescape(s); err == nil {
		return d
	}
	return s
}
