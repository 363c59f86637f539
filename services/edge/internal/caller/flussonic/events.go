package flussonic

import (
	"net/http"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

var _ caller.Reporter = Adapter{}

// Hears implements caller.Reporter: an event_sink posts to /v1/flussonic/<node>/events.
func (Adapter) Hears(r *http.Request) bool { return caller.Below(r, Kind) == caller.HookEvents }

// Events implements caller.Reporter.
func (Adapter) Events(r *http.Request, _ *caller.Node, f func(*caller.Event, bool)) error {
	return caller.EachFacts(r.Body, func(facts caller.Facts) {
		e, ok := event(facts)
		f(&e, ok)
	})
}

// event reads one event of any generation (spec flussonic §12.2).
func event(f caller.Facts) (e caller.Event, ok bool) {
	if f == nil {
		return e, false
	}
	e.Kind = kindOf(f.Text("event"), f.Text("type"))
	if e.Kind == caller.Other {
		return e, true
	}
	// The older ones have the protocol in type, and perhaps an id of the event's own.
	ids := []string{"id", "session_id"}
	if strings.HasPrefix(f.Text("event"), "session") {
		ids = []string{"session_id", "id"}
	}
	if e.Session, ok = f.Name(ids...); !ok || e.Session == "" {
		return e, false
	}
	e.Stream, _ = f.Name("media", "name", "stream")
	e.Token = f.Label(access.MaxToken, "token")
	e.User = f.Label(access.MaxName, "user_id")
	e.UserAgent = f.Label(access.MaxUserAgent, "user_agent")
	e.Country = f.Country("country")
	e.IP = f.IP("ip")
	e.Bytes = f.Total("bytes", "bytes_sent")
	e.Opened = f.Time("opened_at", "created_at")
	e.At = f.Time("utc_ms", "time", "updated_at", "started_at", "opened_at", "created_at")
	if e.Kind == caller.Ended {
		e.At = f.Time("closed_at", "deleted_at", "utc_ms", "time")
		if e.Reason = f.Reason("reason"); e.Token != "" && strings.Contains(e.Reason, e.Token) {
			e.Reason = "" // a free text that repeats what the viewer brought
		}
	}
	if e.Playing = f.Seconds("duration"); e.Playing == 0 && e.Kind == caller.Ended && !e.Opened.IsZero() && e.At.After(e.Opened) {
		e.Playing = e.At.Sub(e.Opened)
	}
	return e, true
}

// kindOf reads the event's name. Events of a source are of a session of ours where it is one that
// publishes: such a type is named by those that have it.
func kindOf(name, kind string) caller.EventKind {
	if stage, ok := strings.CutPrefix(name, "source_"); ok {
		if kind != "publish" {
			return caller.Other
		}
		name = "play_" + stage
	}
	switch name {
	case "play_opened", "session_opened", "session.open":
		return caller.Opened
	case "play_authorized", "play_started", "play_updated":
		return caller.Alive
	case "play_closed", "session_closed", "session.close":
		return caller.Ended
	}
	return caller.Other
}
