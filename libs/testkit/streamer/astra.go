package streamer

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Astra is a Cesbo Astra by its published help: it asks its backend once for each session, lets the
// viewer in when nobody answers, and never asks again.
type Astra struct {
	server
	serial   int             // of the next session; starts again with the process
	sessions map[int]*client // that play
	byPlayer map[Viewer]*client
}

// client is a session of Astra. The server's lock guards it.
type client struct {
	Viewer
	id           int
	opened, last time.Time
	label        string // X-Session-Name
	bytes        int64
	live, over   bool
	unasked      bool   // nobody answered
	reason       string // of its end
}

// firstID is the number of a process's first session.
const firstID = 1

// NewAstra starts one that runs until the test ends.
func NewAstra(t testing.TB, o Options) *Astra {
	t.Helper()
	a := &Astra{serial: firstID, sessions: map[int]*client{}, byPlayer: map[Viewer]*client{}}
	a.start(t, o, http.HandlerFunc(a.control), a.Scan)
	a.sink.webhook()
	return a
}

// Fetch is one request of an HLS player. How Astra knows a player again is not published; here it
// knows him by all that he brings.
func (a *Astra) Fetch(v Viewer) Answer {
	if v.Proto == "" {
		v.Proto = "hls"
	}
	a.mu.Lock()
	if a.away() {
		a.mu.Unlock()
		return Answer{}
	}
	if c := a.byPlayer[v]; c != nil {
		c.last = a.now()
		c.bytes += segment
		a.mu.Unlock()
		return Answer{Status: http.StatusOK, Session: strconv.Itoa(c.id)}
	}
	a.mu.Unlock()
	_, answer := a.open(v, false)
	return answer
}

// Connect begins to play MPEG-TS over HTTP.
func (a *Astra) Connect(v Viewer) (*Conn, Answer) {
	if v.Proto == "" {
		v.Proto = "mpegts"
	}
	c, answer := a.open(v, true)
	if c == nil {
		return nil, answer
	}
	return &Conn{close: func() { a.leave(c) }, lasts: func() (bool, string) { return a.lasts(c) }}, answer
}

func (a *Astra) open(v Viewer, live bool) (*client, Answer) {
	a.mu.Lock()
	if a.away() {
		a.mu.Unlock()
		return nil, Answer{}
	}
	if a.opts.Streams != nil && !slices.Contains(a.opts.Streams, v.Stream) {
		a.mu.Unlock()
		return nil, Answer{Status: http.StatusNotFound}
	}
	boot, id := a.boot, a.serial
	a.serial++
	a.mu.Unlock()

	answer := Answer{Status: http.StatusOK, Session: strconv.Itoa(id)}
	var label string
	if a.opts.Backend != "" {
		answer.Asked = true
		answer.Status, answer.Location, label = a.ask(v, id)
		if answer.Status == 0 {
			answer.Status, answer.Unknown = http.StatusOK, true
		}
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	if a.boot != boot || a.away() {
		return nil, Answer{}
	}
	if !answer.OK() {
		return nil, answer
	}
	if c := a.byPlayer[v]; c != nil && !live { // two requests of one player
		return c, answer
	}
	now := a.now()
	c := &client{Viewer: v, id: id, opened: now, last: now, label: label, live: live, bytes: segment, unasked: answer.Unknown}
	a.sessions[id] = c
	if !live {
		a.byPlayer[v] = c
	}
	return c, answer
}

// ask puts the one question of a session. A 4xx refuses; no answer and a server's error, status 0
// here, let the viewer in.
func (a *Astra) ask(v Viewer, id int) (status int, location, label string) {
	address := a.opts.Backend
	if q := v.query(); q != "" {
		separator := "?"
		if strings.Contains(address, "?") {
			separator = "&"
		}
		address += separator + q
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		panic(err) // a mistake in the test
	}
	path := "/play/" + v.Stream
	if v.Proto == "hls" {
		path += "/index.m3u8"
	}
	r.Header.Set("X-Session-ID", strconv.Itoa(id))
	r.Header.Set("X-Channel-ID", v.Stream)
	r.Header.Set("X-Real-IP", v.IP)
	r.Header.Set("X-Real-Path", path)
	r.Header.Set("X-Real-UA", v.UserAgent)
	r.Header.Set("X-Real-Host", "live.example.com")
	res, err := a.send(r)
	if err != nil {
		return 0, "", ""
	}
	_ = res.Body.Close()
	location = res.Header.Get("X-Location")
	switch {
	case res.StatusCode/100 == 4 && location != "":
		return http.StatusFound, location, ""
	case res.StatusCode/100 == 4:
		return http.StatusForbidden, "", ""
	case res.StatusCode/100 == 3:
		return http.StatusFound, res.Header.Get("Location"), ""
	case res.StatusCode/100 == 5:
		return 0, "", ""
	}
	return http.StatusOK, "", res.Header.Get("X-Session-Name")
}

func (a *Astra) leave(c *client) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end(c, "disconnect")
}

func (a *Astra) lasts(c *client) (bool, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.away() && !c.over, c.reason
}

// end closes a session and tells the webhook. The caller holds mu.
func (a *Astra) end(c *client, reason string) {
	if c.over {
		return
	}
	c.over, c.reason = true, reason
	delete(a.sessions, c.id)
	if !c.live {
		delete(a.byPlayer, c.Viewer)
	}
	a.sink.add(a.object(c))
}

// object is what the list of sessions shows of one. The webhook's body is not published; here it is
// the same. The caller holds mu.
func (a *Astra) object(c *client) map[string]any {
	return map[string]any{
		"client_id": c.id, "channel_id": c.Stream, "channel_name": strings.ToUpper(c.Stream), "addr": c.IP,
		"uptime": int64(a.now().Sub(c.opened) / time.Second),
	}
}

// Scan ends what is idle. It runs by itself unless the server was given a clock.
func (a *Astra) Scan() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, c := range a.sessions {
		if !c.live && now.Sub(c.last) >= a.opts.Idle {
			a.end(c, "idle")
		}
	}
}

// Playing is the truth: what this server sends somebody now, the oldest first.
func (a *Astra) Playing() []Play {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Play
	if a.away() {
		return nil
	}
	for _, c := range a.inOrder() {
		p := Play{
			ID: strconv.Itoa(c.id), Stream: c.Stream, Token: c.Token, IP: c.IP, UserAgent: c.UserAgent, User: c.label,
			Opened: c.opened, Last: c.last, Bytes: c.bytes, Connected: c.live, Unasked: c.unasked,
		}
		if c.live {
			p.Last = a.now()
		}
		all = append(all, p)
	}
	return all
}

func (a *Astra) inOrder() []*client {
	all := make([]*client, 0, len(a.sessions))
	for _, c := range a.sessions {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y *client) int { return x.id - y.id })
	return all
}

// control is POST /control/ with one command.
func (a *Astra) control(w http.ResponseWriter, r *http.Request) {
	var call struct {
		Cmd string `json:"cmd"`
		ID  any    `json:"id"`
	}
	if r.Method != http.MethodPost || r.URL.Path != "/control/" {
		http.NotFound(w, r)
		return
	}
	d := json.NewDecoder(r.Body)
	d.UseNumber()
	if d.Decode(&call) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch call.Cmd {
	case "sessions":
		list := []map[string]any{}
		for _, c := range a.inOrder() {
			list = append(list, a.object(c))
		}
		answer(w, http.StatusOK, map[string]any{"sessions": list})
	case "close-session":
		if c := a.sessions[number(call.ID)]; c != nil {
			a.end(c, "closed_by_api")
		}
		answer(w, http.StatusOK, map[string]any{"close-session": "ok"})
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

// number reads an id as both texts of the manual write it.
func number(id any) int {
	text := ""
	switch v := id.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// Stop is kill -9: nothing is told any more.
func (a *Astra) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.boot++
	for _, c := range a.sessions {
		c.over = true
	}
	a.sessions, a.byPlayer, a.serial = map[int]*client{}, map[Viewer]*client{}, firstID
	a.sink.forget()
}

// Start is the process coming back; its numbers start again.
func (a *Astra) Start() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = false
}
