package streamer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultPage is how many sessions a list holds that names no limit.
const defaultPage = 100

// api is the published part of the HTTP API that deals with sessions.
func (f *Flussonic) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /streamer/api/v3/sessions", f.modern(f.list))
	mux.HandleFunc("GET /streamer/api/v3/sessions/{id}", f.modern(f.one))
	mux.HandleFunc("DELETE /streamer/api/v3/sessions/{id}", f.modern(f.kick))
	mux.HandleFunc("POST /streamer/api/v3/sessions/reauth", f.modern(f.reauth))
	mux.HandleFunc("GET /flussonic/api/sessions", f.legacyList)
	return mux
}

// modern is what the second generation does not have.
func (f *Flussonic) modern(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if f.opts.Legacy {
			http.NotFound(w, r)
			return
		}
		h(w, r)
	}
}

// object is a session by the schemas session_generic and session_details. The caller holds mu.
func (f *Flussonic) object(s *session, now time.Time) map[string]any {
	o := map[string]any{
		"id": s.id, "type": "play", "name": s.Stream, "ip": s.IP, "proto": s.Proto, "token": s.Token,
		"user_agent": s.UserAgent, "bytes": s.total(now), "opened_at": s.opened.UnixMilli(), "updated_at": s.last.UnixMilli(),
		"created_at": s.opened.UnixMilli(), "status": "running", "dvr": s.DVR, "query_string": s.query(), "referer": s.Referer,
		"user_id": nil, "country": nil, "started_at": s.started.UnixMilli(), "current_time": now.Sub(s.opened).Milliseconds(),
	}
	if s.user != "" {
		o["user_id"], o["max_sessions"] = s.user, s.limit
	}
	return o
}

// running are the sessions that a list shows, with their objects. The caller holds mu.
func (f *Flussonic) running() (all []*session, objects []map[string]any) {
	now := f.now()
	for _, s := range f.byPosition() {
		if s.state == granted && !s.published {
			all, objects = append(all, s), append(objects, f.object(s, now))
		}
	}
	return all, objects
}

// list is sessions_list: filters by field, then sort, then a page, then select.
func (f *Flussonic) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	sessions, objects := f.running()
	for i, o := range objects {
		o["$position"] = sessions[i].position
	}
	f.mu.Unlock()
	objects = slices.DeleteFunc(objects, func(o map[string]any) bool { return !matches(o, q) })
	total := len(objects)
	if by := q.Get("sort"); by != "" {
		order(objects, by)
	}
	limit := defaultPage
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		limit = n
	}
	after, err := position(q.Get("cursor"))
	if err != nil {
		failed(w, http.StatusBadRequest, "invalid_cursor", "Cursor cannot be read")
		return
	}
	objects, next := page(objects, after, limit, q.Get("sort") != "")
	for i, o := range objects {
		objects[i] = chosen(o, q.Get("select"))
	}
	answer(w, http.StatusOK, map[string]any{
		"sessions": objects, "estimated_count": total, "next": next, "prev": nil, "timing": map[string]any{},
	})
}

// page is what follows the cursor. One in the order of opening stands at a session's position, so that
// what ends meanwhile shifts nothing; one in another order counts.
func page(objects []map[string]any, after, limit int, sorted bool) (part []map[string]any, next any) {
	at := func(i int) int {
		if sorted {
			return i + 1
		}
		return objects[i]["$position"].(int)
	}
	first := 0
	for first < len(objects) && at(first) <= after {
		first++
	}
	end := min(first+limit, len(objects))
	if end < len(objects) {
		next = base64.StdEncoding.EncodeToString([]byte(url.QueryEscape("$position_gt") + "=" + strconv.Itoa(at(end-1))))
	}
	return objects[first:end], next
}

func position(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	text, err := base64.StdEncoding.DecodeString(cursor)
	if err != nil {
		return 0, err
	}
	q, err := url.ParseQuery(string(text))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(q.Get("$position_gt"))
}

// matches holds an object against the filters: a field's name with its value.
func matches(o map[string]any, q url.Values) bool {
	for name, values := range q {
		if v, ok := o[name]; ok && fmt.Sprint(v) != values[0] {
			return false
		}
	}
	return true
}

// order sorts by fields, a minus turns one around.
func order(objects []map[string]any, by string) {
	slices.SortStableFunc(objects, func(a, b map[string]any) int {
		for field := range strings.SplitSeq(by, ",") {
			name, down := strings.CutPrefix(field, "-")
			c := compare(a[name], b[name])
			if down {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

func compare(a, b any) int {
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			return int(min(max(x-y, -1), 1))
		}
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// chosen are the fields that select names; the id always is one.
func chosen(o map[string]any, fields string) map[string]any {
	delete(o, "$position")
	if fields == "" {
		return o
	}
	out := map[string]any{"id": o["id"]}
	for name := range strings.SplitSeq(fields, ",") {
		if v, ok := o[name]; ok {
			out[name] = v
		}
	}
	return out
}

func (f *Flussonic) byID(id string) *session {
	for _, s := range f.sessions {
		if s.id == id && s.state == granted {
			return s
		}
	}
	return nil
}

func (f *Flussonic) one(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.byID(r.PathValue("id"))
	if s == nil {
		failed(w, http.StatusNotFound, "session_not_found", "Session not found")
		return
	}
	answer(w, http.StatusOK, f.object(s, f.now()))
}

// kick closes a session; its viewer stays out for the rest of the answer's time, else a player
// would be back at once.
func (f *Flussonic) kick(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.byID(r.PathValue("id"))
	if s == nil {
		failed(w, http.StatusNotFound, "session_not_found", "Session not found")
		return
	}
	f.finish(s, "closed_by_api")
	s.state = denied
	w.WriteHeader(http.StatusNoContent)
}

// reauth drops the answers of a stream and asks about its open sessions at once.
func (f *Flussonic) reauth(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, n := r.URL.Query().Get("name"), 0
	for _, s := range f.sessions {
		if s.Stream != name || s.state == establishing {
			continue
		}
		s.until = f.now()
		n++
		if s.state == granted {
			f.loops.Go(func() { f.verify(s) })
		}
	}
	if n == 0 && !slices.Contains(f.opts.Streams, name) {
		failed(w, http.StatusNotFound, "stream_not_found", "Stream not found")
		return
	}
	answer(w, http.StatusOK, map[string]any{"estimated_count": n})
}

// legacyList is what servers before the third API had.
func (f *Flussonic) legacyList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	list := []map[string]any{}
	sessions, _ := f.running()
	for _, s := range sessions {
		if q.Has("name") && q.Get("name") != s.Stream || q.Has("user_id") && q.Get("user_id") != s.user {
			continue
		}
		list = append(list, map[string]any{
			"id": s.id, "session_id": s.id, "name": s.Stream, "token": s.Token, "ip": s.IP, "country": nil, "user_id": s.user,
			"type": s.Proto, "user_agent": s.UserAgent, "referer": s.Referer, "bytes_sent": s.total(now),
			"duration": now.Sub(s.opened).Milliseconds(), "created_at": s.opened.UnixMilli(), "current_time": now.UnixMilli(),
		})
	}
	answer(w, http.StatusOK, map[string]any{"event": "user.list", "sessions": list})
}

// tell sends an event of a session. The caller holds mu.
func (f *Flussonic) tell(name string, s *session, now time.Time, reason string) {
	if s.published {
		return
	}
	if f.opts.Legacy {
		f.tellLegacy(name, s, now)
		return
	}
	f.events++
	e := map[string]any{
		"event": name, "event_id": f.events, "utc_ms": now.UnixMilli(), "server": f.opts.Name, "media": s.Stream, "type": "play",
		"id": s.id, "ip": s.IP, "proto": s.Proto, "token": s.Token, "user_agent": s.UserAgent, "bytes": s.total(now),
		"opened_at": s.opened.UnixMilli(), "updated_at": now.UnixMilli(), "duration": int64(now.Sub(s.opened) / time.Second),
		"query_string": s.query(), "dvr": s.DVR, "ssl": false, "country": "de",
	}
	if s.user != "" {
		e["user_id"] = s.user
	}
	if name == "play_closed" {
		e["closed_at"], e["reason"] = now.UnixMilli(), map[string]any{"code": reason}
	}
	f.sink.add(e)
}

// tellLegacy sends the two events there were before 21.03.
func (f *Flussonic) tellLegacy(name string, s *session, now time.Time) {
	e := map[string]any{
		"session_id": s.id, "media": s.Stream, "token": s.Token, "type": s.Proto, "user_id": s.user, "country": "de",
		"user_agent": s.UserAgent, "bytes_sent": s.total(now), "created_at": s.opened.UnixMilli(),
	}
	switch name {
	case "play_started":
		e["event"] = "session_opened"
	case "play_closed":
		e["event"], e["deleted_at"] = "session_closed", now.UnixMilli()
	default:
		return
	}
	f.sink.add(e)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone
}

func failed(w http.ResponseWriter, status int, code, title string) {
	answer(w, status, map[string]any{"errors": []map[string]any{{"status": strconv.Itoa(status), "code": code, "title": title}}})
}
