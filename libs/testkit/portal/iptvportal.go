package portal

import (
	"net/http"
	"net/url"
	"testing"
)

// IPTVPortal is IPTVportal, of which no public text says more than its two paths and
// that it judges the viewer's rights at each question. Here a viewer is known by `sid`.
type IPTVPortal struct {
	server
	viewers map[string]map[string]string // headers of a yes by sid
}

// NewIPTVPortal starts one that knows nobody.
func NewIPTVPortal(t testing.TB) *IPTVPortal {
	t.Helper()
	p := &IPTVPortal{viewers: map[string]map[string]string{}}
	p.start(t, p.answer)
	return p
}

// Let lets the viewer of this sid watch; headers are sent with each yes.
func (p *IPTVPortal) Let(sid string, headers map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.viewers[sid] = headers
}

// Drop takes the right back.
func (p *IPTVPortal) Drop(sid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.viewers, sid)
}

func (p *IPTVPortal) answer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch r.URL.Path {
	case "/auth/arescrypt/":
	case "/auth/flussonic/arescrypt/":
		for _, field := range []string{"name", "ip", "proto", "session_id", "request_type", "soft_limitation"} {
			if !q.Has(field) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
		}
		q, _ = url.ParseQuery(q.Get("qs"))
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	p.mu.Lock()
	headers, ok := p.viewers[q.Get("sid")]
	p.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	for name, value := range headers {
		w.Header().Set(name, value)
	}
}
