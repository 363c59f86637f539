// Package portal plays operators' subscriber systems for tests: each answers as the
// real product does, by the facts of its documentation and source, and can be told
// to break. It is imported from tests only.
package portal

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is a way to be broken.
type Fault string

// The ways to be broken.
const (
	None    Fault = ""
	Hang    Fault = "hang"    // takes the question and says nothing
	Drip    Fault = "drip"    // a header that never ends, byte by byte
	Flood   Fault = "flood"   // a 200 with 100 MB behind it
	Garbage Fault = "garbage" // no HTTP
	Captive Fault = "captive" // the 200 page of somebody else's portal
	Login   Fault = "login"   // a 302 to a page that says 200 to everybody
	Fail    Fault = "fail"    // a 500
)

// Faults are all ways to be broken.
var Faults = []Fault{Hang, Drip, Flood, Garbage, Captive, Login, Fail}

// floodSize is how much a Flood sends.
const floodSize = 100 << 20

// server is what every product has: an address, a memory of questions, faults, a clock.
type server struct {
	// URL is its scheme, host and port.
	URL string

	mu    sync.Mutex // guards all below, and the product's own state
	fault Fault
	mend  chan struct{} // closed when the fault ends
	asked []*http.Request
	ahead time.Duration
}

// start serves answer until the test ends.
func (s *server) start(t testing.TB, answer http.HandlerFunc) {
	t.Helper()
	s.mend = make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" { // where the fault of that name leads
			w.Header().Set("X-UserId", "everybody")
			_, _ = io.WriteString(w, captivePage)
			return
		}
		body, _ := io.ReadAll(r.Body)
		kept := r.Clone(r.Context())
		kept.Body = io.NopCloser(strings.NewReader(string(body)))
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		s.mu.Lock()
		s.asked = append(s.asked, kept)
		fault, mend := s.fault, s.mend
		s.mu.Unlock()
		if fault != None {
			broken(w, r, fault, mend)
			return
		}
		answer(w, r)
	}))
	s.URL = h.URL
	t.Cleanup(h.Close)
	t.Cleanup(func() { s.Break(None) })
}

// Break makes every further question end in the fault; None mends it, and ends the
// questions that hang.
func (s *server) Break(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.mend)
	s.fault, s.mend = f, make(chan struct{})
}

// Asked are the questions so far, also those that were broken; a body can be read once.
func (s *server) Asked() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.asked...)
}

// Advance moves the product's clock.
func (s *server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// now is the product's clock. The caller holds mu.
func (s *server) now() time.Time { return time.Now().Add(s.ahead) }

const captivePage = "<!DOCTYPE html><html><body>Welcome! Please sign in to use this network.</body></html>"

// broken answers with a fault.
func broken(w http.ResponseWriter, r *http.Request, f Fault, mend <-chan struct{}) {
	switch f {
	case Hang:
		select {
		case <-mend:
		case <-r.Context().Done():
		}
	case Drip, Garbage:
		raw(w, r, f, mend)
	case Flood:
		w.Header().Set("X-UserId", "everybody")
		block := strings.Repeat("{", 1<<16)
		for sent := 0; sent < floodSize; sent += len(block) {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	case Captive:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, captivePage)
	case Login:
		http.Redirect(w, r, "/login", http.StatusFound)
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// raw writes past net/http's server.
func raw(w http.ResponseWriter, _ *http.Request, f Fault, mend <-chan struct{}) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	if f == Garbage {
		_, _ = io.WriteString(c, "\x16\x03\x01\x02\x00\xffgarbage\n\n")
		return
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-UserId: everybody\r\nX-Fill: ")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		select {
		case <-mend:
			return
		case <-tick.C:
			_, err = io.WriteString(c, "a")
		}
	}
}
