package astra

import (
	"cmp"
	"net/http"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// maxSessionName is the longest label that is sent: Astra prints it in its web page.
const maxSessionName = 128

// Answer implements caller.Adapter: 200 lets the viewer in, 403 is every no. The
// older page of Astra's documentation names X-Location for sending a refused
// viewer elsewhere; redirect_status 302 adds the form that newer builds may want.
func (Adapter) Answer(w http.ResponseWriter, n *caller.Node, d *access.Decision) {
	h := w.Header()
	caller.Common(h, d)
	if d.Outcome == access.Allow {
		// A middleware without a label of its own, such as Ministra, still names the account.
		if name := access.Clean(cmp.Or(d.SessionName, d.User), maxSessionName); name != "" {
			h["X-Session-Name"] = []string{name}
		}
		caller.Empty(w, http.StatusOK)
		return
	}
	status := http.StatusForbidden
	if to := caller.Location(d); to != "" {
		h["X-Location"] = []string{to}
		if n != nil && n.RedirectStatus == http.StatusFound {
			h["Location"] = []string{to}
			status = http.StatusFound
		}
	}
	caller.Empty(w, status)
}
