package flussonic

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// Answer implements caller.Adapter.
func (Adapter) Answer(w http.ResponseWriter, n *caller.Node, d *access.Decision) {
	h := w.Header()
	caller.Common(h, d)
	switch {
	case d.Outcome == access.Allow:
		allowed(h, n, d)
		if windows := d.Reach.At(time.Now()); windows != nil {
			write(w, http.StatusOK, map[string][]span{"allowed_dvr_ranges": spans(windows)})
			return
		}
		caller.Empty(w, http.StatusOK)
	case d.Unknown:
		caller.Empty(w, http.StatusInternalServerError)
	case d.Location != "" && n != nil && n.RedirectStatus == http.StatusFound && caller.Location(d) != "":
		h["Location"] = []string{caller.Location(d)}
		caller.Empty(w, http.StatusFound)
	default:
		refused(w, d)
	}
}

// allowed says when to ask again, who it is and how often he may play.
func allowed(h http.Header, n *caller.Node, d *access.Decision) {
	if d.Lease > 0 {
		// Rounded up: a question a moment before the lease ends would be answered from memory once more.
		seconds := int64((d.Lease + time.Second - 1) / time.Second)
		h["X-AuthDuration"] = []string{strconv.FormatInt(seconds, 10)}
	}
	if d.User == "" || n == nil || n.NoHeaders {
		return
	}
	user := d.User
	if d.Realm != "" && d.Realm != access.DefaultRealm {
		user = d.Realm + "/" + user // user 17 of two realms is two people there too
	}
	if access.Clean(user, access.MaxName) != user {
		return // a header cannot hold it, and mended it could be another's
	}
	h["X-UserId"] = []string{user}
	if d.MaxSessions > 0 {
		h["X-Max-Sessions"] = []string{strconv.Itoa(d.MaxSessions)}
	}
}

// failure is one error object of Flussonic's own schema.
type failure struct {
	Status string `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
}

// refused says why in Flussonic's own words, without anything that a viewer brought.
func refused(w http.ResponseWriter, d *access.Decision) {
	write(w, http.StatusForbidden, map[string][]failure{"errors": {{Status: "403", Code: string(d.Reason), Title: d.Reason.Text()}}})
}

// span is a part of the archive by Flussonic's own schema: a bound that is left out is open.
type span struct {
	OpenedAt int64 `json:"opened_at,omitempty"`
	ClosedAt int64 `json:"closed_at,omitempty"`
}

// spans are what Flussonic lets the viewer have of the archive; none is no archive at all.
func spans(windows []access.Window) []span {
	out := make([]span, 0, len(windows))
	for _, w := range windows {
		out = append(out, span{w.From, w.To})
	}
	return out
}

func write(w http.ResponseWriter, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil { // texts and numbers: cannot be
		caller.Empty(w, status)
		return
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller has gone; it has nothing to be told
}
