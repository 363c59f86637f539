package portal

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// smartyLife is TVMIDDLEWARE_STREAM_SERVICE_TOKEN_TTL.
const smartyLife = time.Hour

// Smarty is Microimpulse Smarty: a Django application with one answer for a token check.
type Smarty struct {
	server
	// Refuses is the status of a refusal: 403, or 200, which leaves it to `error`. The
	// vendor does not say which.
	Refuses int
	// XML answers in XML, as for some kinds of devices.
	XML bool
	// ChecksIP is the service's own switch.
	ChecksIP bool

	tokens map[string]smartyToken
}

type smartyToken struct {
	name, ip string
	until    time.Time
}

// NewSmarty starts one that refuses with 403.
func NewSmarty(t testing.TB) *Smarty {
	t.Helper()
	s := &Smarty{Refuses: http.StatusForbidden, ChecksIP: true, tokens: map[string]smartyToken{}}
	s.start(t, s.answer)
	return s
}

// Token makes a token for the content and the viewer's address.
func (s *Smarty) Token(token, name, ip string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = smartyToken{name, ip, s.now().Add(smartyLife)}
}

// Refuse changes Refuses while the server runs.
func (s *Smarty) Refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Refuses = status
}

func (s *Smarty) answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/tvmiddleware/api/streamservice/token/check", "/streaming/api/token/check":
		http.Redirect(w, r, r.URL.Path+"/?"+r.URL.RawQuery, http.StatusMovedPermanently)
		return
	case "/tvmiddleware/api/streamservice/token/check/", "/streaming/api/token/check/":
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	q, _ := url.ParseQuery(r.URL.RawQuery)
	code, refuses := s.check(last(q, "token"), last(q, "name"), last(q, "ip"))
	contentType, form := "application/json", `{"error": %d}`
	if s.XML {
		contentType, form = "application/xml", `<?xml version="1.0" encoding="utf-8"?><response><error>%d</error></response>`
	}
	w.Header().Set("Content-Type", contentType)
	if code != 0 {
		w.WriteHeader(refuses)
	}
	_, _ = fmt.Fprintf(w, form, code)
}

// check gives Smarty's code and the status of a refusal. An unknown token is an expired one: it
// is kept in a cache.
func (s *Smarty) check(token, name, ip string) (code, refuses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.tokens[token]
	switch {
	case !ok || !s.now().Before(known.until):
		return 1, s.Refuses
	case name != "" && name != known.name:
		return 2, s.Refuses
	case ip != "" && s.ChecksIP && ip != known.ip:
		return 3, s.Refuses
	}
	return 0, s.Refuses
}

// last is Django's reading of repeated parameters.
func last(q url.Values, name string) string {
	if all := q[name]; len(all) > 0 {
		return strings.TrimSpace(all[len(all)-1])
	}
	return ""
}
