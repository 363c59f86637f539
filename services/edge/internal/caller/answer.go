package caller

import (
	"net/http"
	"strings"

	"usher.internal/libs/access"
)

// maxLocation is the longest address that a viewer is sent to.
const maxLocation = 2048

// Header values that every answer shares; nobody may write to these slices.
var (
	noStore = []string{"no-store"}
	nothing = []string{"0"}
)

// Common sets the headers of every answer: the decision's id, and the reason of a
// denial. No cache may keep an answer, or a kill would not reach its viewer.
func Common(h http.Header, d *access.Decision) {
	h["X-Usher-Decision"] = []string{d.ID.String()}
	h["Cache-Control"] = noStore
	if d.Outcome != access.Allow {
		h["X-Usher-Reason"] = []string{string(d.Reason)}
	}
}

// Empty writes the status with an empty body.
func Empty(w http.ResponseWriter, status int) {
	w.Header()["Content-Length"] = nothing
	w.WriteHeader(status)
}

// Location is where the decision sends the viewer, "" if nowhere or if the
// address could not stand in a header.
func Location(d *access.Decision) string {
	l := d.Location
	if len(l) > maxLocation || !strings.HasPrefix(l, "https://") && !strings.HasPrefix(l, "http://") {
		return ""
	}
	for i := range len(l) {
		if l[i] <= 0x20 || l[i] >= 0x7f {
			return ""
		}
	}
	return l
}
