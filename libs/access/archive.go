package access

import (
	"fmt"
	"time"
)

// Archive is a recorded part of a stream, in seconds.
type Archive struct {
	Kind ArchiveKind
	// Start is in Unix time, of Range, Piece and From.
	Start int64
	// Length is how long (Range, Piece) or how far back from now (Back).
	Length int64
	// Since is when the running session was first let into this part, in Unix time, 0 if it was not:
	// who plays what was within his depth then is not cut off as it grows older.
	Since int64
}

// ArchiveKind says how the part is given.
type ArchiveKind uint8

// The ways to give a part of the archive.
const (
	Live    ArchiveKind = iota // no archive at all
	Range                      // from Start, Length long
	From                       // from Start on
	Back                       // from Length before now on
	Unknown                    // somewhere in the archive: the caller does not say where
	Piece                      // a segment by its time, which a live viewer asks for too
)

// LiveEdge is how old a segment may be that still belongs to the live stream: a player that was
// paused for a while goes on where it stopped.
const LiveEdge = 5 * time.Minute

// Aged is the archive as it is at that time: a piece is a part of the live stream while it is
// young, and of the archive after that.
func (a Archive) Aged(now time.Time) Archive {
	switch {
	case a.Kind != Piece:
		return a
	case a.Start+a.Length >= now.Add(-LiveEdge).Unix():
		return Archive{}
	}
	return a
}

// Span is the part that is asked for at that time: from is in it, to is not.
func (a Archive) Span(now time.Time) (from, to int64) {
	switch a.Kind {
	case Range, Piece:
		return a.Start, max(a.Start+a.Length, a.Start+1)
	case From:
		return a.Start, max(now.Unix(), a.Start+1)
	case Back:
		return now.Unix() - a.Length, now.Unix()
	}
	return 0, 0
}

// Window is a part of the archive in Unix time: From is in it, To is not; 0 is open on that side.
type Window struct{ From, To int64 }

// holds says whether the part lies inside the window.
func (w Window) holds(from, to int64) bool {
	return (w.From == 0 || from >= w.From) && (w.To == 0 || to <= w.To)
}

// empty says whether nothing can lie inside.
func (w Window) empty() bool { return w.From != 0 && w.To != 0 && w.From >= w.To }

// Reach is how far into a stream's archive a viewer may go; nil is all of it. A part is open to
// him if it lies inside one window, begins within the depth and is no longer than the length.
type Reach struct {
	// Windows are the parts that are open; nil for all, empty for none.
	Windows []Window
	// Depth is how far back a part may begin, Length how long it may be; 0 for any.
	Depth, Length time.Duration
}

// None is the reach of who may see nothing of the archive.
func None() *Reach { return &Reach{Windows: []Window{}} }

// Closed says whether nothing of the archive is open.
func (r *Reach) Closed() bool { return r != nil && r.Windows != nil && len(r.Windows) == 0 }

// Opens says whether the part is open to the viewer; why says in words why it is not. The live
// stream always is. Where the caller does not say which part it is, that is left to the caller,
// who is told the windows, unless nothing is open.
func (r *Reach) Opens(a Archive, now time.Time) (why string, ok bool) {
	switch {
	case r == nil || a.Kind == Live:
		return "", true
	case r.Closed():
		return "no part of the archive is open to the viewer", false
	case a.Kind == Unknown:
		return "", true
	}
	from, to := a.Span(now)
	then := now.Unix()
	if a.Since > 0 {
		then = min(a.Since, then)
	}
	if depth := seconds(r.Depth); depth > 0 && from < then-depth {
		return fmt.Sprintf("it begins %s before now, and the archive is open for %s", days(then-from), days(depth)), false
	}
	if length := seconds(r.Length); length > 0 && to-from > length {
		return fmt.Sprintf("it is %s long, and at most %s at once are open", days(to-from), days(length)), false
	}
	if r.Windows == nil {
		return "", true
	}
	for _, w := range r.Windows {
		if w.holds(from, to) {
			return "", true
		}
	}
	return "it does not lie inside one of the windows that are open", false
}

// Or is r with what it leaves out taken from other: what somebody says of the viewer counts
// before what is said of the stream.
func (r *Reach) Or(other *Reach) *Reach {
	switch {
	case r == nil:
		return other
	case other == nil:
		return r
	}
	out := *r
	if out.Windows == nil {
		out.Windows = other.Windows
	}
	if out.Depth == 0 {
		out.Depth = other.Depth
	}
	if out.Length == 0 {
		out.Length = other.Length
	}
	return &out
}

// And is what both open.
func (r *Reach) And(other *Reach) *Reach {
	switch {
	case r == nil:
		return other
	case other == nil:
		return r
	}
	return &Reach{
		Windows: meet(r.Windows, other.Windows),
		Depth:   tighter(r.Depth, other.Depth), Length: tighter(r.Length, other.Length),
	}
}

// tighter is the smaller bound; 0 is none.
func tighter(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// maxWindows bounds what two lists of windows have in common.
const maxWindows = 256

// meet is what lies inside a window of each list. Beyond maxWindows the rest is left out, which
// opens less.
func meet(a, b []Window) []Window {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := []Window{}
	for _, x := range a {
		for _, y := range b {
			w := Window{From: max(x.From, y.From), To: x.To}
			if x.To == 0 || y.To != 0 && y.To < x.To {
				w.To = y.To
			}
			if !w.empty() && len(out) < maxWindows {
				out = append(out, w)
			}
		}
	}
	return out
}

// At are the windows with the depth in them, at that time: what a caller can be told that knows
// windows alone. nil is the whole archive.
func (r *Reach) At(now time.Time) []Window {
	if r == nil {
		return nil
	}
	if depth := seconds(r.Depth); depth > 0 {
		return meet([]Window{{From: now.Unix() - depth}}, r.Windows)
	}
	return r.Windows
}

// Equal says whether both open the same.
func (r *Reach) Equal(other *Reach) bool {
	if r == nil || other == nil {
		return r == other
	}
	if r.Depth != other.Depth || r.Length != other.Length || (r.Windows == nil) != (other.Windows == nil) || len(r.Windows) != len(other.Windows) {
		return false
	}
	for i := range r.Windows {
		if r.Windows[i] != other.Windows[i] {
			return false
		}
	}
	return true
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// days writes seconds as people do.
func days(n int64) string {
	switch {
	case n >= 86400 && n%86400 == 0:
		return fmt.Sprintf("%d d", n/86400)
	case n >= 2*86400:
		return fmt.Sprintf("%.1f d", float64(n)/86400)
	}
	return (time.Duration(n) * time.Second).String()
}
