package portal

import (
	"net/http"
	"testing"
)

// Answer is what a backend of the operator's own says.
type Answer struct {
	Status  int
	Headers map[string]string
	Body    string
}

// HTTP is a backend of the operator's own, written for Astra: it knows tokens.
type HTTP struct {
	server
	answers map[string]Answer
}

// NewHTTP starts one that refuses everybody with 403; it answers at every path.
func NewHTTP(t testing.TB) *HTTP {
	t.Helper()
	h := &HTTP{answers: map[string]Answer{}}
	h.start(t, h.answer)
	return h
}

// Set is what it says to a token.
func (h *HTTP) Set(token string, a Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[token] = a
}

func (h *HTTP) answer(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	a, ok := h.answers[r.URL.Query().Get("token")]
	h.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write([]byte(a.Body))
}
