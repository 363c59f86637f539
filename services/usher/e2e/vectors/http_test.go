package vectors_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide/decidetest"
)

// overHTTP puts the question as the node's streaming server does.
func (c *chain) overHTTP(t *testing.T, q *decidetest.Question, device string) answer {
	t.Helper()
	kind := "nginx"
	if n := c.snapshot.Nodes[cmp.Or(q.Node, "web")]; n != nil {
		kind = n.Caller
	}
	ask, ok := map[string]func(*decidetest.Question, string) *http.Request{
		"nginx": c.nginx, "astra": c.astra, "flussonic": c.flussonic,
	}[kind]
	if !ok {
		t.Fatalf("no test asks as %s does", kind)
	}
	r := ask(q, device)
	for name, value := range q.Header {
		delete(r.Header, http.CanonicalHeaderKey(name))
		delete(r.Header, name)
		if value != "" {
			r.Header[name] = []string{value}
		}
	}
	res, err := c.client.Do(r.WithContext(t.Context()))
	if err != nil {
		t.Errorf("no answer: %v", err)
		return answer{}
	}
	defer func() { _ = res.Body.Close() }() // it is read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("half an answer: %v", err)
	}
	id, err := uuid.Parse(res.Header.Get("X-Usher-Decision"))
	if err != nil {
		t.Errorf("X-Usher-Decision: %v", err)
	}
	a := answer{http: true, outcome: string(access.Deny), reason: res.Header.Get("X-Usher-Reason"), decision: id}
	a.row = c.find(t, id, a.reason)
	if a.row != nil {
		a.outcome = a.row.Outcome
	}
	if a.row != nil && res.StatusCode == http.StatusOK {
		a.reason = a.row.Reason // no caller is told why it may
	}
	a.check = func(t *testing.T, w *decidetest.Want) { checkHTTP(t, kind, w, res, string(body)) }
	return a
}

func checkHTTP(t *testing.T, kind string, w *decidetest.Want, res *http.Response, body string) {
	t.Helper()
	status := w.HTTP.Status
	if status == 0 {
		status = http.StatusForbidden
		if w.Outcome == string(access.Allow) {
			status = http.StatusOK
		}
	}
	if res.StatusCode != status {
		t.Errorf("status = %d, want %d", res.StatusCode, status)
	}
	if w.HTTP.Body != "" && !decidetest.Like(body, w.HTTP.Body) {
		t.Errorf("body = %s, want %s", body, w.HTTP.Body)
	}
	for name, want := range w.HTTP.Header {
		if got := res.Header.Get(name); !decidetest.Like(got, want) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if name := map[string]string{"nginx": "X-Usher-Location", "astra": "X-Location"}[kind]; name != "" && res.Header.Get(name) != w.Location {
		t.Errorf("%s = %q, want %q", name, res.Header.Get(name), w.Location)
	}
}

// nginx is the question of auth_request with the snippet of the edge's README.
func (c *chain) nginx(q *decidetest.Question, device string) *http.Request {
	req := q.Request()
	r := get(c.edge + "/v1/nginx/" + req.Node)
	uri := cmp.Or(req.Path, "/"+req.Stream+"/index.m3u8")
	if req.Query != "" {
		uri += "?" + req.Query
	}
	r.Header.Set("X-Original-URI", uri)
	r.Header.Set("X-Original-Method", http.MethodGet)
	r.Header.Set("X-Real-IP", req.IP.String())
	r.Header.Set("User-Agent", cmp.Or(req.UserAgent, device))
	if req.Referer != "" {
		r.Header.Set("Referer", req.Referer)
	}
	r.Host = req.Host
	return r
}

// astra is the question of Astra's backend type "HTTP Request", in Astra's own spelling.
func (c *chain) astra(q *decidetest.Question, device string) *http.Request {
	req := q.Request()
	r := get(c.edge + "/v1/astra/" + req.Node + "/check?" + cmp.Or(q.Ask, req.Query))
	for name, value := range map[string]string{
		"X-Session-ID": cmp.Or(req.CallerSession, device), "X-Channel-ID": cmp.Or(req.Channel, req.Stream), "X-Real-IP": req.IP.String(),
		"X-Real-Path": cmp.Or(req.Path, "/play/"+req.Stream+"/index.m3u8"), "X-Real-UA": cmp.Or(req.UserAgent, device), "X-Real-Host": req.Host,
	} {
		r.Header[name] = []string{value}
	}
	return r
}

// flussonic is the question of Flussonic's on_play.
func (c *chain) flussonic(q *decidetest.Question, device string) *http.Request {
	req := q.Request()
	ask := q.Ask
	if ask == "" {
		v := url.Values{
			"name": {req.Stream}, "proto": {"hls"}, "ip": {req.IP.String()}, "request_type": {"new_session"}, "request_number": {"0"},
			"stream_clients": {"1"}, "total_clients": {"2"}, "session_id": {sessionID(cmp.Or(req.CallerSession, device))},
			"user_agent": {cmp.Or(req.UserAgent, device)},
		}
		for name, value := range map[string]string{"token": req.Token, "qs": req.Query, "host": req.Host, "referer": req.Referer} {
			if value != "" {
				v.Set(name, value)
			}
		}
		if part := mediaRequest(req.Archive); part != "" {
			v.Set("media_request", part)
		}
		ask = v.Encode()
	}
	r := get(c.edge + "/v1/flussonic/" + req.Node + "?" + ask)
	if req.Action == access.Publish {
		r.URL.Path += "/publish"
	}
	return r
}

// mediaRequest is how Flussonic says which part of the archive is asked for.
func mediaRequest(a access.Archive) string {
	switch a.Kind {
	case access.Range:
		return fmt.Sprintf("dvr_session-hls_mbr_playlist-%d-%d", a.Start, a.Length)
	case access.From:
		return fmt.Sprintf("hls_timeshift_playlist-hls_timeshift_abs-%d", a.Start)
	case access.Back:
		return fmt.Sprintf("hls_timeshift_playlist-hls_timeshift_rel-%d", a.Length)
	}
	return ""
}

// sessionID makes an id of Flussonic's form of the case's name for it.
func sessionID(name string) string { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String() }

func get(url string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return r
}
