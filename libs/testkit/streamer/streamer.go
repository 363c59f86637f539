// Package streamer plays streaming servers for tests: a Flussonic and an Astra, as their vendors
// publish what they do, not as our edge expects it. Each plays viewers, asks its auth backend about
// them, tells of its sessions (event sink, webhook), has the vendor's control API, and knows what
// nobody else does: what really plays. It is imported from tests only.
package streamer

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Viewer is what a player brings. Two of the same are the same player.
type Viewer struct {
	Stream, Token, IP, UserAgent, Referer string
	// Proto is hls unless it says otherwise.
	Proto string
	// Query is the whole query; "" for one that holds the token alone.
	Query string
	// DVR plays the archive; MediaRequest is what Flussonic's second generation says of it.
	DVR          bool
	MediaRequest string
	// Cookie tells players apart that are otherwise the same; only Astra looks at it.
	Cookie string
}

// Answer is what a player gets. Status 0 is a server that is not there.
type Answer struct {
	Status   int
	Location string // where a 302 leads
	Session  string // the server's own id of the session
	Asked    bool   // the backend was asked on this request
	Unknown  bool   // and could not tell: the status is the server's own
}

// OK says that the viewer sees something.
func (a Answer) OK() bool { return a.Status == http.StatusOK }

// Play is a session that really plays.
type Play struct {
	ID, Stream, Token, IP, UserAgent, User string
	Opened, Last                           time.Time // Last request, or now while it is connected
	Bytes                                  int64
	Connected                              bool // it lasts as long as its connection
	Unasked                                bool // it was let in since the backend could not be asked
}

// Options are how a server is set up. The zero value asks nobody and lets everybody in.
type Options struct {
	Backend string // auth backend: on_play of Flussonic, Backend Address of Astra
	Publish string // on_publish of Flussonic; "" lets everybody publish
	Events  string // event sink or Sessions Webhook
	Name    string // of the server, as newer events tell it
	// User and Password are those of the control API; both "" for an open one.
	User, Password string
	// Now is the server's clock; nil for the real one. Whoever brings a clock also calls Scan.
	Now func() time.Time
	// Timeout is how long the backend is waited for: 3 s unless it says otherwise.
	Timeout time.Duration
	// Idle ends an HLS session: 60 s unless it says otherwise.
	Idle time.Duration
	// AuthDuration of an answer that says none: 180 s unless it says otherwise.
	AuthDuration time.Duration
	// Retry is how long a session goes on after nobody could tell before it is asked about again.
	Retry time.Duration
	// Keys are session_keys: name, ip, proto and token unless they say otherwise.
	Keys []string
	// Streams are those that exist; nil for all.
	Streams []string
	// Legacy asks as the second generation did: type for proto, media_request for dvr, a trailing
	// ampersand, and lists sessions at /flussonic/api/sessions alone.
	Legacy bool
	// Update is how often play_updated goes out; 0 for never.
	Update time.Duration
	// Throttle is throttle_delay of the sink, Resend its resend_timeout: 50 ms and 200 ms unless they
	// say otherwise.
	Throttle, Resend time.Duration
	// Faults happen on the way of events.
	Faults Faults
	// Seed of the faults.
	Seed uint64
}

const (
	defaultTimeout      = 3 * time.Second
	defaultIdle         = 60 * time.Second
	defaultAuthDuration = 180 * time.Second
	defaultThrottle     = 50 * time.Millisecond
	defaultResend       = 200 * time.Millisecond
	// scanEvery is how often a server with the real clock looks what has ended.
	scanEvery = 100 * time.Millisecond
)

func (o *Options) complete() {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&o.Timeout, defaultTimeout)
	set(&o.Idle, defaultIdle)
	set(&o.AuthDuration, defaultAuthDuration)
	set(&o.Throttle, defaultThrottle)
	set(&o.Resend, defaultResend)
	if o.Keys == nil {
		o.Keys = []string{"name", "ip", "proto", "token"}
	}
}

// server is what both kinds have: an address of the control API, a way to the backend, faults of
// the network, a clock.
type server struct {
	// URL is the base of the control API.
	URL string

	opts   Options
	client *http.Client
	sink   *sink
	quit   chan struct{}
	loops  sync.WaitGroup

	mu      sync.Mutex // guards all below, and the sessions of the kind
	boot    int        // counts starts: what began before the last one does not count
	stopped bool
	deaf    bool // the control API cannot be reached
	cut     bool // nothing and nobody can be reached
	calls   []string
}

func (s *server) start(t testing.TB, o Options, api http.Handler, scan func()) {
	t.Helper()
	o.complete()
	s.opts, s.quit = o, make(chan struct{})
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	s.client = &http.Client{
		Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.sink = newSink(s)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, api) }))
	s.URL = h.URL
	s.loops.Go(s.sink.run)
	if o.Now == nil {
		s.loops.Go(func() { s.every(scanEvery, scan) })
	}
	t.Cleanup(func() {
		close(s.quit)
		h.Close()
		s.loops.Wait()
		transport.CloseIdleConnections()
	})
}

// serve lets in who can reach the API and may use it.
func (s *server) serve(w http.ResponseWriter, r *http.Request, api http.Handler) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	away := s.stopped || s.deaf || s.cut
	if !away {
		s.calls = append(s.calls, r.Method+" "+r.URL.RequestURI())
	}
	s.mu.Unlock()
	if away {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close() // as if nobody had been there
		}
		return
	}
	user, password, _ := r.BasicAuth()
	if user != s.opts.User || password != s.opts.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="streamer"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.Body = io.NopCloser(&reader{body})
	api.ServeHTTP(w, r)
}

// Calls are the calls that the control API has had, as "METHOD uri".
func (s *server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Deafen makes the control API unreachable, or reachable again. Viewers notice nothing.
func (s *server) Deafen(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = on
}

// Cut takes the server off the network of its operator, or puts it back: neither can it ask or tell
// anything nor be reached; its viewers still can.
func (s *server) Cut(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = on
}

// Undelivered is how many events wait to be told.
func (s *server) Undelivered() int { return s.sink.waiting() }

// now is the server's clock.
func (s *server) now() time.Time {
	if s.opts.Now != nil {
		return s.opts.Now()
	}
	return time.Now()
}

// away says whether viewers find no server here. The caller holds mu.
func (s *server) away() bool { return s.stopped }

func (s *server) every(d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			f()
		}
	}
}

// send does a request of the server's own, unless it is cut off.
func (s *server) send(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	cut := s.cut || s.stopped
	s.mu.Unlock()
	if cut {
		return nil, errCut
	}
	return s.client.Do(r)
}

// reader is a body that was read already.
type reader struct{ rest []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
