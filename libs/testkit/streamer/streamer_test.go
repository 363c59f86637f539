package streamer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// backend answers what it is told and remembers what it was asked and told.
type backend struct {
	URL string

	mu     sync.Mutex // guards all below
	status int
	header map[string]string
	asked  []*http.Request
	bodies []string
	events []map[string]any
	deaf   bool // takes no events
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{status: http.StatusOK}
	h := httptest.NewServer(b)
	t.Cleanup(h.Close)
	b.URL = h.URL
	return b
}

// ServeHTTP implements http.Handler.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.URL.Path == "/events" {
		if b.deaf {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		var list []map[string]any
		if json.Unmarshal(body, &list) != nil {
			var one map[string]any
			_ = json.Unmarshal(body, &one)
			list = []map[string]any{one}
		}
		b.events = append(b.events, list...)
		return
	}
	b.asked, b.bodies = append(b.asked, r), append(b.bodies, string(body))
	for name, value := range b.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(b.status)
}

func (b *backend) say(status int, header ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.header = status, map[string]string{}
	for i := 0; i+1 < len(header); i += 2 {
		b.header[header[i]] = header[i+1]
	}
}

func (b *backend) questions() []*http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked)
}

func (b *backend) told(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.events {
		if name == "" || e["event"] == name {
			n++
		}
	}
	return n
}

// watch is a clock that stands until it is put forward.
type watch struct {
	mu sync.Mutex
	at time.Time
}

func newWatch() *watch { return &watch{at: time.Unix(1_700_000_000, 0)} }

func (c *watch) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *watch) later(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		<-tick.C
	}
}

func want(t *testing.T, what string, a Answer, status int, asked bool) {
	t.Helper()
	if a.Status != status || a.Asked != asked {
		t.Errorf("%s: %+v, want %d, asked %t", what, a, status, asked)
	}
}

var viewer = Viewer{Stream: "bbc", Token: "T1", IP: "203.0.113.7", UserAgent: "VLC/3.0"}

func TestFlussonicStates(t *testing.T) {
	t.Parallel()
	b, c := newBackend(t), newWatch()
	f := NewFlussonic(t, Options{Backend: b.URL + "/auth", Now: c.now})
	b.say(http.StatusOK, "X-AuthDuration", "30", "X-UserId", "u42")
	want(t, "new", f.Fetch(viewer), 200, true)
	want(t, "fresh", f.Fetch(viewer), 200, false)
	c.later(31 * time.Second)
	b.say(http.StatusInternalServerError)
	want(t, "nobody can tell", f.Fetch(viewer), 200, true)
	b.say(http.StatusForbidden, "X-AuthDuration", "20")
	want(t, "ended", f.Fetch(viewer), 403, true)
	want(t, "the denial is remembered", f.Fetch(viewer), 403, false)
	if n := len(f.Playing()); n != 0 {
		t.Errorf("%d play", n)
	}
	c.later(21 * time.Second)
	b.say(http.StatusOK, "X-AuthDuration", "30")
	want(t, "granted again", f.Fetch(viewer), 200, true)
	asked := b.questions()
	q := asked[len(asked)-1].URL.Query()
	for name, value := range map[string]string{
		"name": "bbc", "proto": "hls", "ip": "203.0.113.7", "token": "T1", "request_type": "update_session", "request_number": "3",
		"duration": "52", "qs": "token=T1", "user_agent": "VLC/3.0", "total_clients": "0", "stream_clients": "0",
	} {
		if q.Get(name) != value {
			t.Errorf("%s = %q, want %q", name, q.Get(name), value)
		}
	}
	if first := asked[0].URL.Query(); first.Get("request_type") != "new_session" || first.Get("request_number") != "0" || first.Get("session_id") != q.Get("session_id") {
		t.Errorf("first question %v, last %v", first, q)
	}
	c.later(61 * time.Second)
	f.Scan()
	if n := len(f.Playing()); n != 0 {
		t.Errorf("%d play after their idle time", n)
	}
	b.say(http.StatusInternalServerError)
	want(t, "new, nobody can tell", f.Fetch(viewer), 403, true)
	b.say(http.StatusFound, "Location", "https://tv.example.com/")
	if a := f.Fetch(viewer); a.Status != 302 || a.Location != "https://tv.example.com/" {
		t.Errorf("redirected: %+v", a)
	}
}

func TestFlussonicConnectionsAreAskedAboutByTime(t *testing.T) {
	t.Parallel()
	b, c := newBackend(t), newWatch()
	f := NewFlussonic(t, Options{Backend: b.URL, Now: c.now})
	b.say(http.StatusOK, "X-AuthDuration", "10")
	conn, a := f.Connect(viewer)
	want(t, "connected", a, 200, true)
	c.later(11 * time.Second)
	f.Scan()
	if !conn.Lasts() || len(b.questions()) != 2 {
		t.Errorf("lasts %t after %d questions", conn.Lasts(), len(b.questions()))
	}
	b.say(http.StatusForbidden)
	c.later(11 * time.Second)
	f.Scan()
	if conn.Lasts() {
		t.Error("it lasts although it was refused")
	}
}

func TestFlussonicPublishPostsJSON(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := NewFlussonic(t, Options{Publish: b.URL})
	_, a := f.Publish(Viewer{Stream: "cam/1", Token: "T1", IP: "203.0.113.7", Proto: "rtmp"})
	want(t, "published", a, 200, true)
	var call map[string]any
	if err := json.Unmarshal([]byte(b.bodies[0]), &call); err != nil || call["name"] != "cam/1" || call["request_number"] != 0.0 || call["proto"] != "rtmp" {
		t.Errorf("posted %s: %v", b.bodies[0], err)
	}
}

func TestFlussonicLimitsByItself(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := NewFlussonic(t, Options{Backend: b.URL})
	b.say(http.StatusOK, "X-UserId", "u1", "X-Max-Sessions", "1")
	f.Fetch(viewer)
	other := viewer
	other.Stream = "cnn"
	want(t, "second", f.Fetch(other), 200, true)
	want(t, "the older one is banned", f.Fetch(viewer), 403, false)
}

func (f *Flussonic) api1(t *testing.T, method, path string) (status int, body map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, f.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", "secret")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_ = json.NewDecoder(res.Body).Decode(&body)
	return res.StatusCode, body
}

func TestFlussonicAPI(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := NewFlussonic(t, Options{Backend: b.URL, User: "admin", Password: "secret"})
	for i := range 7 {
		f.Fetch(Viewer{Stream: "bbc", Token: fmt.Sprint("T", i), IP: "203.0.113.7"})
	}
	if res, err := http.Get(f.URL + "/streamer/api/v3/sessions"); err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a password: %v %v", res, err)
	}
	var tokens []string
	cursor, pages := "", 0
	for cursor != "" || pages == 0 {
		_, body := f.api1(t, http.MethodGet, "/streamer/api/v3/sessions?select=token&limit=3&cursor="+url.QueryEscape(cursor))
		list, _ := body["sessions"].([]any)
		for _, s := range list {
			o, _ := s.(map[string]any)
			tokens = append(tokens, fmt.Sprint(o["token"]))
			if len(o) != 2 {
				t.Errorf("selected %v", o)
			}
		}
		cursor, _ = body["next"].(string)
		pages++
	}
	if pages != 3 || strings.Join(tokens, " ") != "T0 T1 T2 T3 T4 T5 T6" {
		t.Errorf("%d pages hold %v", pages, tokens)
	}
	_, body := f.api1(t, http.MethodGet, "/streamer/api/v3/sessions?sort=-token&limit=1")
	first, _ := body["sessions"].([]any)[0].(map[string]any)
	if first["token"] != "T6" {
		t.Errorf("sorted downwards: %v", first)
	}
	id := fmt.Sprint(first["id"])
	if status, _ := f.api1(t, http.MethodDelete, "/streamer/api/v3/sessions/"+id); status != http.StatusNoContent {
		t.Errorf("DELETE = %d", status)
	}
	if status, _ := f.api1(t, http.MethodGet, "/streamer/api/v3/sessions/"+id); status != http.StatusNotFound {
		t.Errorf("GET of what was closed = %d", status)
	}
	want(t, "kicked", f.Fetch(Viewer{Stream: "bbc", Token: "T6", IP: "203.0.113.7"}), 403, false)
	b.say(http.StatusForbidden)
	if status, body := f.api1(t, http.MethodPost, "/streamer/api/v3/sessions/reauth?name=bbc"); status != http.StatusOK || body["estimated_count"] != 7.0 {
		t.Errorf("reauth = %d %v", status, body)
	}
	eventually(t, "all were asked about and refused", func() bool { return len(f.Playing()) == 0 })
	if status, _ := f.api1(t, http.MethodPost, "/streamer/api/v3/sessions/reauth?name=none"); status != http.StatusNotFound {
		t.Errorf("reauth of what is not there = %d", status)
	}
	if _, body := f.api1(t, http.MethodGet, "/flussonic/api/sessions"); body["event"] != "user.list" {
		t.Errorf("the older list is %v", body)
	}
}

func TestFlussonicEvents(t *testing.T) {
	t.Parallel()
	b, c := newBackend(t), newWatch()
	f := NewFlussonic(t, Options{Backend: b.URL, Events: b.URL + "/events", Now: c.now})
	b.mu.Lock()
	b.deaf = true
	b.mu.Unlock()
	f.Fetch(viewer)
	c.later(time.Hour)
	f.Scan()
	b.mu.Lock()
	b.deaf = false
	b.mu.Unlock()
	eventually(t, "what was not taken comes again", func() bool { return b.told("play_closed") == 1 })
	if b.told("play_opened") != 1 || b.told("play_started") != 1 {
		t.Errorf("events %v", b.events)
	}
	f.SetFaults(Faults{Lose: 1})
	f.Fetch(viewer)
	f.SetFaults(Faults{Repeat: 1})
	c.later(time.Hour)
	f.Scan()
	eventually(t, "the last end comes twice", func() bool { return b.told("play_closed") == 3 })
	if b.told("play_opened") != 1 {
		t.Errorf("what was lost came: %v", b.events)
	}
}

func TestFlussonicKilledTellsNothing(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := NewFlussonic(t, Options{Backend: b.URL, Events: b.URL + "/events"})
	first := f.Fetch(viewer)
	eventually(t, "it told of the session", func() bool { return f.Undelivered() == 0 && b.told("play_started") == 1 })
	f.Stop()
	want(t, "nobody is there", f.Fetch(viewer), 0, false)
	if _, err := http.Get(f.URL + "/streamer/api/v3/sessions"); err == nil {
		t.Error("the API of a dead process answers")
	}
	f.Start()
	again := f.Fetch(viewer)
	want(t, "back", again, 200, true)
	if again.Session == first.Session || b.told("play_closed") != 0 {
		t.Errorf("session %s again, events %v", again.Session, b.events)
	}
}

func TestAstraAsksOnceAndLetsInWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	b, c := newBackend(t), newWatch()
	a := NewAstra(t, Options{Backend: b.URL + "/check", Events: b.URL + "/events", User: "admin", Password: "secret", Now: c.now})
	b.say(http.StatusOK, "X-Session-Name", "alice")
	want(t, "new", a.Fetch(viewer), 200, true)
	c.later(30 * time.Second)
	want(t, "never again", a.Fetch(viewer), 200, false)
	r := b.questions()[0]
	for name, value := range map[string]string{
		"X-Session-ID": "1", "X-Channel-ID": "bbc", "X-Real-IP": "203.0.113.7", "X-Real-Path": "/play/bbc/index.m3u8", "X-Real-UA": "VLC/3.0",
	} {
		if r.Header.Get(name) != value {
			t.Errorf("%s = %q, want %q", name, r.Header.Get(name), value)
		}
	}
	if r.URL.RequestURI() != "/check?token=T1" {
		t.Errorf("asked %s", r.URL)
	}
	other := viewer
	other.Token = "T2"
	b.say(http.StatusForbidden)
	want(t, "refused", a.Fetch(other), 403, true)
	b.say(http.StatusInternalServerError)
	want(t, "a server's error lets in", a.Fetch(other), 200, true)
	a.Cut(true)
	third, answer := a.Connect(Viewer{Stream: "bbc", IP: "203.0.113.9"})
	want(t, "nobody there lets in", answer, 200, true)
	a.Cut(false)

	var list struct {
		Sessions []map[string]any `json:"sessions"`
	}
	a.post(t, `{"cmd":"sessions"}`, &list)
	if len(list.Sessions) != 3 || list.Sessions[0]["client_id"] != 1.0 || list.Sessions[0]["uptime"] != 30.0 || list.Sessions[2]["client_id"] != 4.0 {
		t.Errorf("the list is %v", list.Sessions)
	}
	a.post(t, `{"cmd":"close-session","id":"4"}`, nil)
	a.post(t, `{"cmd":"close-session","id":3}`, nil)
	if third.Lasts() || len(a.Playing()) != 1 {
		t.Errorf("closed ones play: %+v", a.Playing())
	}
	eventually(t, "the webhook told of both ends", func() bool { return b.told("") == 2 })
	a.Stop()
	a.Start()
	if again := a.Fetch(viewer); again.Session != "1" {
		t.Errorf("after a restart ids begin at %s", again.Session)
	}
	c.later(time.Hour)
	a.Scan()
	if n := len(a.Playing()); n != 0 {
		t.Errorf("%d play after their idle time", n)
	}
}

func (a *Astra) post(t *testing.T, body string, into any) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, a.URL+"/control/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", "secret")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d", body, res.StatusCode)
	}
	if into != nil {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
}
