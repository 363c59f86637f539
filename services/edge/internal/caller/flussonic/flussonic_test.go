package flussonic

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/caller/callertest"
)

var update = callertest.Update()

var peer = netip.MustParseAddr("10.2.0.5")

const (
	// newSession and updateSession are NEW and UPD of spec flussonic §19.2.
	newSession = "name=bbc&proto=hls&ip=203.0.113.7&token=T1&request_type=new_session&request_number=0" +
		"&session_id=6217fd62-16da-4206-9da9-0173d7552a14&stream_clients=1&total_clients=2"
	updateSession = "name=bbc&proto=hls&ip=203.0.113.7&token=T1&request_type=update_session&request_number=1" +
		"&session_id=6217fd62-16da-4206-9da9-0173d7552a14&stream_clients=1&total_clients=2&duration=180&bytes=12345"
	// published is on_publish's sample, with its empty object in place of a host.
	published = `{"name":"cam/1","proto":"rtmp","ip":"203.0.113.7","request_type":"new_session","request_number":0,
		"session_id":"6217fd62-16da-4206-9da9-0173d7552a14","stream_clients":0,"total_clients":2,"token":"T1","duration":0,
		"bytes":0,"qs":"token=T1&a=b","user_agent":"OBS","referer":"rtmp://x/","host":{},"later":[1,{"name":"evil"}]}`
)

func get(query string) *http.Request {
	return httptest.NewRequest(http.MethodGet, "/v1/flussonic/fl1?"+query, nil)
}

func post(path, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
}

// bbc is what NEW says.
func bbc() access.Request {
	return access.Request{
		Stream: "bbc", Channel: "bbc", Token: "T1", Query: "token=T1", IP: netip.MustParseAddr("203.0.113.7"),
		CallerSession: "6217fd62-16da-4206-9da9-0173d7552a14", Protocol: "hls", Action: access.Play,
	}
}

func with(change func(*access.Request)) access.Request {
	q := bbc()
	change(&q)
	return q
}

func TestParse(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		r    *http.Request
		view *usherv1.NodeView
		want access.Request
	}{
		"NEW":                                   {r: get(newSession), want: bbc()},
		"UPD":                                   {r: get(updateSession), want: with(func(q *access.Request) { q.Update = true })},
		"BP-9 trailing ampersand, unknown name": {r: get(newSession + "&zzz=1&zzz=2&"), want: bbc()},
		"BP-13 open_session":                    {r: get(strings.Replace(newSession, "new_session", "open_session", 1)), want: bbc()},
		"a second question mark":                {r: get("a=b?" + newSession), want: bbc()},
		"BP-3 no token": {r: get(strings.Replace(newSession, "token=T1&", "", 1)), want: with(func(q *access.Request) {
			q.Token, q.Query = "", ""
		})},
		"all that the third generation sends": {
			r: get(newSession + "&qs=" + url.QueryEscape("token=T1&dev=box%2B7") + "&user_agent=VLC%2F3.0&referer=https%3A%2F%2Fexample.com%2Fx&host=tv.example.com"),
			want: with(func(q *access.Request) {
				q.Query, q.UserAgent, q.Referer, q.Host = "token=T1&dev=box%2B7", "VLC/3.0", "https://example.com/x", "tv.example.com"
			}),
		},
		"token and device at places of their own": {
			r:    get(strings.Replace(newSession, "token=T1&", "", 1) + "&qs=" + url.QueryEscape("t=T1&dev=box%2B7")),
			view: &usherv1.NodeView{Token: []string{"query:t"}, Device: "query:dev"},
			want: with(func(q *access.Request) { q.Query, q.Device = "t=T1&dev=box%2B7", "box+7" }),
		},
		"second generation": {r: get("name=vod/movies/bunny.mp4&ip=2001:db8::5&token=T1&type=mpegts"), want: access.Request{
			Stream: "vod/movies/bunny.mp4", Channel: "vod/movies/bunny.mp4", Token: "T1", Query: "token=T1",
			IP: netip.MustParseAddr("2001:db8::5"), Protocol: "mpegts", Action: access.Play,
		}},
		"published": {r: post("/v1/flussonic/fl1", published), want: with(func(q *access.Request) {
			q.Stream, q.Channel, q.Protocol, q.Action, q.Query, q.UserAgent, q.Referer =
				"cam/1", "cam/1", "rtmp", access.Publish, "token=T1&a=b", "OBS", "rtmp://x/"
		})},
		"published by name of the hook": {r: httptest.NewRequest(http.MethodGet, "/v1/flussonic/fl1/publish?"+newSession, nil),
			want: with(func(q *access.Request) { q.Action = access.Publish })},
		"played by a post": {r: post("/v1/flussonic/fl1/play", `{"name":"bbc","ip":"203.0.113.7","token":"T1","dvr":true}`), want: access.Request{
			Stream: "bbc", Channel: "bbc", Token: "T1", Query: "token=T1", IP: netip.MustParseAddr("203.0.113.7"), Action: access.Play,
			Archive: access.Archive{Kind: access.Unknown},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.view == nil {
				c.view = &usherv1.NodeView{}
			}
			var q access.Request
			if err := (Adapter{}).Parse(c.r, callertest.Node(t, c.view), peer, &q); err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if q != c.want {
				t.Errorf("got  %+v\nwant %+v", q, c.want)
			}
		})
	}
}

// TestArchive walks the table of spec flussonic §9.
func TestArchive(t *testing.T) {
	t.Parallel()
	part := func(k access.ArchiveKind, start, length int64) access.Archive {
		return access.Archive{Kind: k, Start: start, Length: length}
	}
	for text, want := range map[string]access.Archive{
		"hls_live-hls_mbr_playlist":                                     {},
		"hls_live-hls_track_playlist":                                   {},
		"mpegts_handler-request":                                        {},
		"dvr_session-hls_mbr_playlist-1710010000-3600":                  part(access.Range, 1710010000, 3600),
		"dvr_session-hls_track_playlist-1710010000-3600":                part(access.Range, 1710010000, 3600),
		"dvr_session-bootstrap-1710010000-3600":                         part(access.Range, 1710010000, 3600),
		"dvr_handler-mp4-1710010000-60":                                 part(access.Range, 1710010000, 60),
		"dvr_stream_handler-ts_file-1710010000-60":                      part(access.Range, 1710010000, 60),
		"dvr_handler-timeshift_abs-1710010000":                          part(access.From, 1710010000, 0),
		"hls_timeshift_playlist-hls_track_timeshift_abs-1710010000":     part(access.From, 1710010000, 0),
		"dvr_handler-timeshift_rel-3600":                                part(access.Back, 0, 3600),
		"hls_timeshift_playlist-hls_timeshift_rel-3600":                 part(access.Back, 0, 3600),
		"dvr_session-hls_mbr_playlist":                                  part(access.Unknown, 0, 0),
		"dvr_session-hls_mbr_playlist-99999999999999999999999-3600":     part(access.Unknown, 0, 0),
		"hls_timeshift_playlist-hls_timeshift_rel-99999999999999999999": part(access.Unknown, 0, 0),
	} {
		got, err := fields{"media_request": text}.archive()
		if err != nil || got != want {
			t.Errorf("%s is read as %+v (%v), want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]access.ArchiveKind{"": access.Live, "false": access.Live, "true": access.Unknown, "1": access.Unknown} {
		if got, err := (fields{"dvr": text}).archive(); err != nil || got.Kind != want {
			t.Errorf("dvr=%s is read as %+v (%v), want %v", text, got, err, want)
		}
	}
	if _, err := (fields{"dvr": "maybe"}).archive(); err == nil {
		t.Error("dvr=maybe is accepted")
	}
}

func TestBadQuestions(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70000)
	cases := map[string]*http.Request{
		"no name":               get("ip=203.0.113.7&token=K1"),
		"empty name":            get("name=&ip=203.0.113.7&token=K1"),
		"no address":            get("name=bbc&token=K1"),
		"no plain address":      get("name=bbc&ip=203.0.113.7:80&token=K1"),
		"name twice":            get("name=bbc&name=K1&ip=203.0.113.7"),
		"token twice":           get("name=bbc&token=K1&ip=203.0.113.7&tok%65n=K2"),
		"token behind another":  get("name=bbc?token=K1&ip=203.0.113.7&token=K2"),
		"bad escape":            get("name=bbc&ip=203.0.113.7&token=%zz"),
		"control in the name":   get("name=b%00c&ip=203.0.113.7"),
		"token not UTF-8":       get("name=bbc&ip=203.0.113.7&token=%ff"),
		"qs badly escaped":      get("name=bbc&ip=203.0.113.7&qs=" + url.QueryEscape("token=%zz")),
		"long":                  get("name=bbc&ip=203.0.113.7&x=" + long),
		"long token":            get("name=bbc&ip=203.0.113.7&token=" + long[:5000]),
		"another method":        httptest.NewRequest(http.MethodPut, "/v1/flussonic/fl1?"+newSession, nil),
		"another hook":          httptest.NewRequest(http.MethodGet, "/v1/flussonic/fl1/pubish?"+newSession, nil),
		"dvr neither":           get(newSession + "&dvr=K1"),
		"body is no JSON":       post("/v1/flussonic/fl1", "name=bbc"),
		"body is a list":        post("/v1/flussonic/fl1", "[]"),
		"body is cut":           post("/v1/flussonic/fl1", published[:60]),
		"body goes on":          post("/v1/flussonic/fl1", published+published),
		"body says token twice": post("/v1/flussonic/fl1", `{"name":"bbc","ip":"203.0.113.7","token":"K1","token":"K2"}`),
		"body is long":          post("/v1/flussonic/fl1", `{"name":"`+long+`"}`),
		"body is not UTF-8":     post("/v1/flussonic/fl1", "{\"name\":\"\xff\",\"ip\":\"203.0.113.7\"}"),
		"body is empty":         post("/v1/flussonic/fl1", ""),
	}
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q access.Request
			err := Adapter{}.Parse(r, callertest.Node(t, &usherv1.NodeView{}), peer, &q)
			if _, ok := errors.AsType[*caller.Bad](err); !ok {
				t.Fatalf("Parse = %v, want a *caller.Bad", err)
			}
			for _, secret := range []string{"K1", "K2", "xxx"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds what was sent: %v", err)
				}
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	may := callertest.Dialect{Unknown: http.StatusInternalServerError, Body: true}
	callertest.Golden(t, "answers", Adapter{}, callertest.Node(t, &usherv1.NodeView{}), *update, may)
	callertest.Golden(t, "answers_302", Adapter{}, callertest.Node(t, &usherv1.NodeView{RedirectStatus: 302}), *update, may)
	callertest.Golden(t, "answers_no_headers", Adapter{}, callertest.Node(t, &usherv1.NodeView{NoHeaders: true}), *update, may)
	callertest.Golden(t, "answers_no_node", Adapter{}, nil, *update, may)
}

func FuzzParse(f *testing.F) {
	f.Add(false, newSession)
	f.Add(false, updateSession+"&media_request=dvr_session-hls_mbr_playlist-1710010000-3600")
	f.Add(false, "a=b?name=x&ip=::1&qs=token%3D1%26tok%2565n%3D2")
	f.Add(true, published)
	f.Add(true, `{"name":"a","ip":"1.2.3.4","token":1e9,"x":{"a":[[[]]]}}`)
	f.Fuzz(func(t *testing.T, body bool, text string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/flussonic/fl1", RawQuery: text}}
		if body {
			r = post("/v1/flussonic/fl1", text)
		}
		var q access.Request
		n := callertest.Node(t, &usherv1.NodeView{Device: "query:dev", Token: []string{"query:token", "query:t"}})
		if err := (Adapter{}).Parse(r, n, peer, &q); err == nil {
			callertest.Sound(t, &q)
		}
	})
}
