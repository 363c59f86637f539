package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
)

const (
	// MaxRows bounds one list, over all of its pages.
	MaxRows = 1 << 20
	// maxText is the longest text that is kept of what is only shown.
	maxText = access.MaxUserAgent
)

// Rows reads a list: the array under one of names in an object, or an array that stands alone.
// Each of its rows is read into a T and given to take; rows that are no T are counted. Other keys of
// the object are given in rest, where they hold a text or a number.
func Rows[T any](r io.Reader, name string, take func(*T)) (rest map[string]Value, bad int, err error) {
	d := json.NewDecoder(r)
	t, err := d.Token()
	if err != nil {
		return nil, 0, broken(err)
	}
	if t == json.Delim('[') {
		bad, err = rows(d, take)
		return nil, bad, err
	}
	if t != json.Delim('{') {
		return nil, 0, fmt.Errorf("%w: neither a list nor an object", ErrAnswer)
	}
	rest, found := map[string]Value{}, false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, bad, broken(err)
		}
		if key != name {
			var v Value
			if err := d.Decode(&v); err != nil {
				return nil, bad, broken(err)
			}
			if k, ok := key.(string); ok && len(rest) < 32 {
				rest[k] = v
			}
			continue
		}
		t, err := d.Token()
		if err != nil || t != json.Delim('[') && t != nil || found {
			return nil, bad, fmt.Errorf("%w: %s is no list", ErrAnswer, name)
		}
		found = true
		if t == nil {
			continue // null: there are none
		}
		if bad, err = rows(d, take); err != nil {
			return nil, bad, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, bad, broken(err)
	}
	if !found {
		return nil, bad, fmt.Errorf("%w: there is no list in it", ErrAnswer)
	}
	return rest, bad, nil
}

// rows reads up to the end of an array that was begun.
func rows[T any](d *json.Decoder, take func(*T)) (bad int, err error) {
	for n := 0; d.More(); n++ {
		if n >= MaxRows {
			return bad, ErrTooLong
		}
		var row T
		err := d.Decode(&row)
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong != nil {
			bad++
			continue
		}
		if err != nil {
			return bad, broken(err)
		}
		take(&row)
	}
	_, err = d.Token()
	return bad, broken(err)
}

// broken says what is wrong with an answer, without its text.
func broken(err error) error {
	switch _, syntax := errors.AsType[*json.SyntaxError](err); {
	case err == nil:
		return nil
	case syntax:
		return fmt.Errorf("%w: it is no JSON", ErrAnswer)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it breaks off", ErrAnswer)
	}
	return err
}

// Value is a text or a number, whichever a version of the server writes; all else is empty.
type Value struct {
	text   string
	number bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails: a field of a wrong type must not
// cost its row.
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = Value{}
	switch {
	case len(b) > 0 && b[0] == '"':
		return json.Unmarshal(b, &v.text)
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		v.text, v.number = string(b), true
	}
	return nil
}

// IsNumber says that it was written as a number.
func (v Value) IsNumber() bool { return v.number }

// ID is an identity, "" if it cannot be one: identities are refused rather than mended or cut.
func (v Value) ID() string {
	if len(v.text) > access.MaxName || access.Clean(v.text, access.MaxName) != v.text {
		return ""
	}
	return v.text
}

// Opaque is a text that is only handed back; ok is false if it is longer than limit.
func (v Value) Opaque(limit int) (text string, ok bool) {
	if len(v.text) > limit {
		return "", false
	}
	return v.text, true
}

// Label is a text that is only shown or matched.
func (v Value) Label() string { return access.Clean(v.text, maxText) }

// Int is a number, 0 if it is none or below 0.
func (v Value) Int() int64 {
	if n, err := strconv.ParseInt(v.text, 10, 64); err == nil {
		return max(n, 0)
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !(f > 0) || f >= math.MaxInt64 {
		return 0
	}
	return int64(f)
}

// Seconds is a duration in seconds, at most ten years.
func (v Value) Seconds() time.Duration {
	const most = 10 * 365 * 24 * 60 * 60
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !(f > 0) {
		return 0
	}
	return time.Duration(min(f, most) * float64(time.Second))
}

// Time is a Unix time, in seconds or in milliseconds as servers have written it; zero if none.
func (v Value) Time() time.Time {
	const (
		later = 1e11 // no time in seconds within a thousand years
		most  = 1e14
	)
	switch n := v.Int(); {
	case n == 0 || n > most:
		return time.Time{}
	case n > later:
		return time.UnixMilli(n)
	default:
		return time.Unix(n, 0)
	}
}

// IP is an address, the zero Addr if it is none; a port behind it is left out.
func (v Value) IP() netip.Addr {
	text := strings.TrimSpace(v.text)
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.Unmap().WithZone("")
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Country is two capital letters, "" if it is none.
func (v Value) Country() string {
	if len(v.text) != 2 {
		return ""
	}
	c := strings.ToUpper(v.text)
	if c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
		return ""
	}
	return c
}
