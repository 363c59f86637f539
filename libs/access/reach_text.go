package access

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ReachForm says how a reach is written.
const ReachForm = "none, or depth=7d, length=4h and window=FROM-TO in Unix time, with commas between them"

// Bounds of what is written.
const (
	maxReachTime   = 3650 * 24 * time.Hour
	maxReachText   = 4096
	maxUnix        = 9_999_999_999
	maxTextWindows = 64
)

// String writes the reach as ParseReach reads it, "" for nil.
func (r *Reach) String() string {
	if r == nil {
		return ""
	}
	if r.Closed() {
		return "none"
	}
	var parts []string
	if r.Depth > 0 {
		parts = append(parts, "depth="+span(r.Depth))
	}
	if r.Length > 0 {
		parts = append(parts, "length="+span(r.Length))
	}
	for _, w := range r.Windows {
		parts = append(parts, "window="+unix(w.From)+"-"+unix(w.To))
	}
	return strings.Join(parts, ",")
}

func unix(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func span(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	return d.String()
}

// ParseReach reads how far into the archive somebody may go; "" is nil.
func ParseReach(text string) (*Reach, error) {
	switch {
	case text == "":
		return nil, nil
	case text == "none":
		return None(), nil
	case len(text) > maxReachText:
		return nil, errors.New("it is too long")
	}
	r := new(Reach)
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		var err error
		switch key {
		case "depth":
			r.Depth, err = reachTime(value)
		case "length":
			r.Length, err = reachTime(value)
		case "window":
			var w Window
			if w, err = parseWindow(value); err == nil {
				r.Windows = append(r.Windows, w)
			}
		default:
			err = errors.New("it is not known")
		}
		if err == nil && len(r.Windows) > maxTextWindows {
			err = fmt.Errorf("there are more than %d windows", maxTextWindows)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w; want %s", part, err, ReachForm)
		}
	}
	return r, nil
}

func reachTime(text string) (time.Duration, error) {
	var d time.Duration
	if n, isDays := strings.CutSuffix(text, "d"); isDays {
		days, err := strconv.ParseUint(n, 10, 12)
		if err != nil {
			return 0, errors.New("it is no time")
		}
		d = time.Duration(days) * 24 * time.Hour
	} else {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return 0, errors.New("it is no time")
		}
	}
	if d < time.Second || d > maxReachTime {
		return 0, errors.New("it is not between 1s and 3650d")
	}
	return d, nil
}

func parseWindow(text string) (Window, error) {
	from, to, ok := strings.Cut(text, "-")
	a, errA := bound(from)
	b, errB := bound(to)
	if !ok || errA != nil || errB != nil {
		return Window{}, errors.New("it is no window")
	}
	return NewWindow(a, b)
}

func bound(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// NewWindow is a window of which one bound may be left open (0). Times of before 2001 or after
// 2286 are no Unix times, but mistakes.
func NewWindow(from, to int64) (Window, error) {
	w := Window{From: from, To: to}
	switch {
	case from == 0 && to == 0:
		return w, errors.New("it has no bounds")
	case from != 0 && (from < 1e9 || from > maxUnix), to != 0 && (to < 1e9 || to > maxUnix):
		return w, errors.New("its bounds are no Unix times")
	case w.empty():
		return w, errors.New("it ends before it begins")
	}
	return w, nil
}
