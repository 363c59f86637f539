package portal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/google/uuid"
)

// Subscriber is whom a Flussonic backend knows.
type Subscriber struct {
	User string
	// MaxSessions and AuthDuration are sent unless they are 0; Unique if it is true.
	MaxSessions, AuthDuration int
	Unique                    bool
	// Suspended is refused, also at an update.
	Suspended bool
	// Location sends him elsewhere.
	Location string
}

// FlussonicBackend is a backend as Flussonic's manual describes one. It answers 400, with
// what is wrong, to a question that no Flussonic would put.
type FlussonicBackend struct {
	server
	subscribers map[string]Subscriber
}

// NewFlussonicBackend starts one that knows nobody; it answers at every path.
func NewFlussonicBackend(t testing.TB) *FlussonicBackend {
	t.Helper()
	b := &FlussonicBackend{subscribers: map[string]Subscriber{}}
	b.start(t, b.answer)
	return b
}

// Set makes the token that of the subscriber.
func (b *FlussonicBackend) Set(token string, s Subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribers[token] = s
}

func (b *FlussonicBackend) answer(w http.ResponseWriter, r *http.Request) {
	call, err := readCall(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	s, ok := b.subscribers[call["token"]]
	b.mu.Unlock()
	h := w.Header()
	switch {
	case !ok || s.Suspended:
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, `{"errors":[{"status":"403","code":"forbidden","title":"no such subscriber"}]}`)
		return
	case s.Location != "":
		http.Redirect(w, r, s.Location, http.StatusFound)
		return
	}
	h.Set("X-UserId", s.User)
	if s.MaxSessions > 0 {
		h.Set("X-Max-Sessions", strconv.Itoa(s.MaxSessions))
	}
	if s.AuthDuration > 0 {
		h.Set("X-AuthDuration", strconv.Itoa(s.AuthDuration))
	}
	if s.Unique {
		h.Set("X-Unique", "true")
	}
	_, _ = fmt.Fprint(w, `{"allowed_dvr_ranges":[{"opened_at":1710010000,"closed_at":1710020000}],"ad_inject":{"v":2}}`)
}

// readCall reads a question in either form and says what is wrong with it.
func readCall(r *http.Request) (map[string]string, error) {
	call := map[string]string{}
	switch r.Method {
	case http.MethodGet:
		for name, values := range r.URL.Query() {
			if len(values) != 1 {
				return nil, fmt.Errorf("%s stands %d times", name, len(values))
			}
			call[name] = values[0]
		}
	case http.MethodPost:
		var object map[string]any
		if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
			return nil, fmt.Errorf("reading the body: %w", err)
		}
		for name, value := range object {
			call[name] = fmt.Sprint(value)
		}
	default:
		return nil, fmt.Errorf("method %s", r.Method)
	}
	for _, name := range []string{"name", "proto", "ip"} {
		if call[name] == "" {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	for _, name := range []string{"request_number", "stream_clients", "total_clients"} {
		if _, err := strconv.Atoi(call[name]); err != nil {
			return nil, fmt.Errorf("%s is no number", name)
		}
	}
	if _, err := uuid.Parse(call["session_id"]); err != nil {
		return nil, fmt.Errorf("session_id: %w", err)
	}
	if first := call["request_type"] == "new_session"; first != (call["request_number"] == "0") || !first && call["request_type"] != "update_session" {
		return nil, fmt.Errorf("request_type %q with request_number %q", call["request_type"], call["request_number"])
	}
	return call, nil
}
