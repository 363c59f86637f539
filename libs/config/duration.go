package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as operators write it: "1500ms", "90s", "6h",
// "3d", "1d12h". A day is 24 hours. It is never negative.
type Duration time.Duration

var errDuration = errors.New(`want a duration with its unit, such as 1500ms, 90s, 6h or 3d`)

// ParseDuration reads what Duration describes; "0" needs no unit.
func ParseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		rest = text
	}
	var d time.Duration
	if found {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil {
			return 0, errDuration
		}
		if n > math.MaxInt64/uint64(24*time.Hour) {
			return 0, fmt.Errorf("%s is longer than 292 years", text)
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if rest == "" && found {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || strings.HasPrefix(rest, "+") || strings.HasPrefix(rest, "-") {
		return 0, errDuration
	}
	if d > math.MaxInt64-more {
		return 0, fmt.Errorf("%s is longer than 292 years", text)
	}
	return d + more, nil
}

// Duration is the value for package time.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String writes it the way it is read, in days where it is whole days.
func (d Duration) String() string {
	const day = 24 * time.Hour
	if t := time.Duration(d); t > 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON writes String.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }
