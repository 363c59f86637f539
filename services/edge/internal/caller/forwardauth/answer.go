package forwardauth

import (
	"net/http"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// Answer implements caller.Adapter: 200, or 403 for every no: nginx turns any other
// code but 401 into 500, and 401 would make players ask for a password. Where the
// proxy hands our answer on, a no with an address is a 302 to it; nginx gets it in
// X-Usher-Location for its error_page.
func (a Adapter) Answer(w http.ResponseWriter, _ *caller.Node, d *access.Decision) {
	h := w.Header()
	caller.Common(h, d)
	if d.Outcome == access.Allow {
		caller.Empty(w, http.StatusOK)
		return
	}
	h["X-Auth-Reason"] = []string{string(d.Reason)}
	to := caller.Location(d)
	switch {
	case to == "":
		caller.Empty(w, http.StatusForbidden)
	case a.whole:
		h["Location"] = []string{to}
		caller.Empty(w, http.StatusFound)
	default:
		h["X-Usher-Location"] = []string{to}
		caller.Empty(w, http.StatusForbidden)
	}
}
