package streamer

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verdict is what the backend said.
type verdict struct {
	status   int // 0 for no answer
	duration time.Duration
	user     string
	limit    int
	location string
}

// verify asks about the session unless its last answer still stands, and says whether it did.
// Requests that come meanwhile wait for the same answer.
func (f *Flussonic) verify(s *session) bool {
	s.asking.Lock()
	defer s.asking.Unlock()
	f.mu.Lock()
	now := f.now()
	if f.away() || s.state == finished || s.state != establishing && now.Before(s.until) {
		f.mu.Unlock()
		return false
	}
	boot := f.boot
	backend := f.opts.Backend
	if s.published {
		backend = f.opts.Publish
	}
	call := f.call(s, now)
	s.number++
	f.mu.Unlock()

	v := verdict{status: http.StatusOK, duration: f.opts.AuthDuration}
	if backend != "" {
		v = f.ask(backend, s, call)
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.boot == boot && s.state != finished {
		f.apply(s, v)
	}
	return true
}

// apply is the state machine of a session and an answer (schema and manual: 200 grants, 302 sends
// away, 403 denies, 500 and no connection keep what was). The caller holds mu.
func (f *Flussonic) apply(s *session, v verdict) {
	now := f.now()
	s.until = now.Add(v.duration)
	s.unknown = v.status == 0 || v.status == http.StatusInternalServerError
	switch v.status {
	case 0, http.StatusInternalServerError:
		s.until = now.Add(f.opts.Retry)
		if s.state == establishing {
			f.end(s, "auth_unavailable") // nobody could tell: refused, and asked again
		}
	case http.StatusOK:
		s.user, s.limit, s.location = v.user, v.limit, ""
		if s.state != granted {
			s.state, s.started, s.updated = granted, now, now
			f.tell("play_authorized", s, now, "")
			f.tell("play_started", s, now, "")
		}
		f.limit(s, now)
	default:
		f.finish(s, "auth_denied")
		s.state, s.location = denied, v.location
	}
}

// limit bans the oldest of the user's sessions on this server while there are more than he may
// have. The caller holds mu.
func (f *Flussonic) limit(s *session, now time.Time) {
	if s.user == "" || s.limit <= 0 {
		return
	}
	var his []*session
	for _, other := range f.byPosition() {
		if other.state == granted && other.user == s.user {
			his = append(his, other)
		}
	}
	for len(his) > s.limit {
		oldest := his[0]
		his = his[1:]
		f.finish(oldest, "limit_exceeded")
		oldest.state = denied
		if until := now.Add(f.opts.AuthDuration); oldest.until.Before(until) {
			oldest.until = until
		}
	}
}

// call is what the backend is told, by the published list of fields. The caller holds mu.
func (f *Flussonic) call(s *session, now time.Time) map[string]any {
	stream, total := 0, 0
	for _, other := range f.sessions {
		if other.state != granted || other.published {
			continue
		}
		total++
		if other.Stream == s.Stream {
			stream++
		}
	}
	c := map[string]any{
		"name": s.Stream, "ip": s.IP, "request_type": "new_session", "request_number": s.number, "session_id": s.id,
		"stream_clients": stream, "total_clients": total, "token": s.Token, "user_agent": s.UserAgent,
	}
	if f.opts.Legacy {
		c["type"] = strings.Replace(s.Proto, "tshttp", "mpegts", 1)
		if s.MediaRequest != "" {
			c["media_request"] = s.MediaRequest
		}
	} else {
		c["proto"], c["qs"] = s.Proto, s.query()
		if s.DVR {
			c["dvr"] = true
		}
	}
	if s.Referer != "" {
		c["referer"] = s.Referer
	}
	if s.number > 0 {
		c["request_type"] = "update_session"
		c["duration"], c["bytes"] = int64(now.Sub(s.opened)/time.Second), s.total(now)
	}
	if s.published {
		c["host"] = map[string]any{} // as the published sample has it
	}
	return c
}

func (v *Viewer) query() string {
	if v.Query != "" || v.Token == "" {
		return v.Query
	}
	return "token=" + url.QueryEscape(v.Token)
}

// ask puts the question: a GET for playing, a POST for publishing.
func (f *Flussonic) ask(backend string, s *session, call map[string]any) verdict {
	var r *http.Request
	var err error
	if s.published {
		body, _ := json.Marshal(call) // of strings and numbers alone
		r, err = http.NewRequestWithContext(context.Background(), http.MethodPost, backend, bytes.NewReader(body))
		if err == nil {
			r.Header.Set("Content-Type", "application/json")
		}
	} else {
		r, err = http.NewRequestWithContext(context.Background(), http.MethodGet, backend+"?"+f.encode(call), nil)
	}
	if err != nil {
		panic(err) // a mistake in the test
	}
	res, err := f.send(r)
	if err != nil {
		return verdict{}
	}
	defer func() { _ = res.Body.Close() }() // it is not read
	return f.read(res)
}

// encode writes pairs: in the second generation with an ampersand behind each.
func (f *Flussonic) encode(call map[string]any) string {
	names := make([]string, 0, len(call))
	for name := range call {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte('&')
		}
		var text string
		switch v := call[name].(type) {
		case string:
			text = v
		case int:
			text = strconv.Itoa(v)
		case int64:
			text = strconv.FormatInt(v, 10)
		case bool:
			text = strconv.FormatBool(v)
		}
		b.WriteString(name + "=" + url.QueryEscape(text))
	}
	if f.opts.Legacy {
		b.WriteByte('&')
	}
	return b.String()
}

func (f *Flussonic) read(res *http.Response) verdict {
	h := res.Header
	v := verdict{status: res.StatusCode, duration: f.opts.AuthDuration, user: h.Get("X-UserId")}
	if n, err := strconv.Atoi(h.Get("X-AuthDuration")); err == nil && n > 0 {
		v.duration = time.Duration(n) * time.Second
	}
	if n, err := strconv.Atoi(h.Get("X-Max-Sessions")); err == nil {
		v.limit = n
	} else if h.Get("X-Unique") == "true" {
		v.limit = 1
	}
	if res.StatusCode == http.StatusFound {
		v.location = h.Get("Location")
	}
	return v
}
