package astra

import (
	"net/http"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

var _ caller.Reporter = Adapter{}

// Hears implements caller.Reporter: the Sessions Webhook posts to /v1/astra/<node>/events.
func (Adapter) Hears(r *http.Request) bool { return caller.Below(r, Kind) == caller.HookEvents }

// Events implements caller.Reporter.
func (Adapter) Events(r *http.Request, _ *caller.Node, f func(*caller.Event, bool)) error {
	return caller.EachFacts(r.Body, func(facts caller.Facts) {
		for _, one := range sessions(facts) {
			e, ok := event(one)
			f(&e, ok)
		}
	})
}

// sessions are those that one object tells of: itself, or what it wraps. Astra's documentation does not
// print the webhook's body (spec astra-and-middlewares §9, U13).
func sessions(f caller.Facts) []caller.Facts {
	if one, ok := f["session"].(map[string]any); ok {
		return []caller.Facts{inherit(one, f)}
	}
	list, ok := f["sessions"].([]any)
	if !ok {
		return []caller.Facts{f}
	}
	all := make([]caller.Facts, 0, len(list))
	for _, v := range list {
		one, _ := v.(map[string]any)
		if one == nil {
			all = append(all, nil)
			continue
		}
		all = append(all, inherit(one, f))
	}
	return all
}

// inherit takes from the wrapper what the session does not say itself.
func inherit(one map[string]any, from caller.Facts) caller.Facts {
	for _, name := range []string{"event", "reason", "time", "timestamp"} {
		if _, ok := one[name]; !ok && from[name] != nil {
			one[name] = from[name]
		}
	}
	return one
}

// event reads one session. It is sent when a session closes, unless it says otherwise itself.
func event(f caller.Facts) (e caller.Event, ok bool) {
	if f == nil {
		return e, false
	}
	if e.Session, ok = f.Name("client_id", "session_id", "id"); !ok || e.Session == "" {
		return e, false
	}
	e.Kind = kindOf(f.Text("event", "action"))
	e.Stream, _ = f.Name("channel_id", "stream_id", "channel")
	e.IP = f.IP("addr", "ip")
	e.UserAgent = f.Label(access.MaxUserAgent, "user_agent", "ua")
	e.User = f.Label(access.MaxName, "login", "user")
	e.Country = f.Country("country")
	e.Bytes = f.Total("bytes", "bytes_sent")
	e.Playing = f.Seconds("uptime", "duration")
	e.At = f.Time("closed_at", "time", "timestamp")
	e.Opened = f.Time("opened_at", "created_at")
	if e.Kind == caller.Ended {
		e.Reason = f.Reason("reason")
	}
	if e.Opened.IsZero() && e.Playing > 0 {
		at := e.At
		if at.IsZero() {
			at = time.Now()
		}
		e.Opened = at.Add(-e.Playing)
	}
	return e, true
}

func kindOf(name string) caller.EventKind {
	switch strings.ToLower(name) {
	case "open", "opened", "session_open", "session_opened", "start", "started":
		return caller.Opened
	case "update", "updated", "session_updated":
		return caller.Alive
	}
	return caller.Ended
}
