package portal

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// linkLife is tv_tmp_link_ttl.
const linkLife = 5 * time.Second

// Ministra is a portal 5.x (and, without its folder, Ministra PRO): links live five
// seconds, can be asked about any number of times within them, and are bound to nothing.
type Ministra struct {
	server
	// MaxSessions is what X-Max-Sessions says: the setting max_local_recordings, 10.
	MaxSessions int
	// Login and Password are asked for by the JSON resource if Login is not empty.
	Login, Password string

	links map[string]link
}

type link struct {
	value string
	until time.Time
}

// NewMinistra starts a portal; it is reached under /stalker_portal and at its root.
func NewMinistra(t testing.TB) *Ministra {
	t.Helper()
	m := &Ministra{MaxSessions: 10, links: map[string]link{}}
	m.start(t, m.answer)
	return m
}

// Link makes a Temporary URL's token for a subscriber's number; "1" stands for a link for
// Wowza, /get/… for one of the proxy kind.
func (m *Ministra) Link(value string) string {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	token := hex.EncodeToString(key)
	m.Keep(token, value)
	return token
}

// Keep makes this very token, as Link makes one.
func (m *Ministra) Keep(token, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[token] = link{value, m.now().Add(linkLife)}
}

func (m *Ministra) answer(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/stalker_portal")
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	if token, ok := strings.CutPrefix(path, "/api/v1/tv_tmp_link/"); ok {
		m.resource(w, r, token)
		return
	}
	if path != "/server/api/chk_flussonic_tmp_link.php" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	token, array := phpGet(r.URL.RawQuery, "token")
	if array {
		w.WriteHeader(http.StatusInternalServerError) // an array reaches the cache
		return
	}
	value, ok := m.find(token)
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	h := w.Header()
	h.Set("X-AuthDuration", "36000")
	h.Set("X-Unique", "true")
	h.Set("X-Max-Sessions", strconv.Itoa(m.MaxSessions))
	h["X-UserId"] = []string{value}
}

// find looks a token up as PHP does: empty and "0" are no token.
func (m *Ministra) find(token string) (string, bool) {
	if token == "" || token == "0" {
		return "", false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.links[token]
	return l.value, ok && m.now().Before(l.until)
}

// resource says OK of every token; results tells.
func (m *Ministra) resource(w http.ResponseWriter, r *http.Request, token string) {
	if user, password, _ := r.BasicAuth(); m.Login != "" && (user != m.Login || password != m.Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Stalker API"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var results any = false
	if value, ok := m.find(token); ok {
		results = value
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "OK", "results": results})
}

// phpGet reads a parameter as PHP does: names are decoded, cut at NUL and freed of spaces
// before them, the last of equal names counts, and name[] makes an array of it.
func phpGet(query, name string) (value string, array bool) {
	for pair := range strings.SplitSeq(query, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		n, _, _ := strings.Cut(phpDecode(rawName), "\x00")
		n, _, bracket := strings.Cut(strings.TrimLeft(n, " "), "[")
		if n == name {
			value, array = phpDecode(rawValue), bracket
		}
	}
	return value, array
}

// phpDecode leaves what is no escape as it is.
func phpDecode(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}
