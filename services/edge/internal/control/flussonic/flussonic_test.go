package flussonic

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/control"
)

const (
	page1 = `{"estimated_count":3,"next":"aWQ9Mg==","sessions":[
		{"id":"6217fd62-16da-4206-9da9-0173d7552a14","name":"bbc","proto":"hls","ip":"203.0.113.7","token":"T1","user_id":"17","country":"DE",
		 "user_agent":"VLC/3.0","bytes":12345,"opened_at":1700000000000,"status":"running","later":{"x":1}},
		{"id":"6217fd62-16da-4206-9da9-0173d7552a15","name":"cam","type":"publish","bytes":1}]}`
	page2 = `{"sessions":[{"id":"6217fd62-16da-4206-9da9-0173d7552a16","name":"cnn","ip":"2001:db8::5","bytes":"7","opened_at":1700000000,
		"closed_at":1700000060,"status":"finished"},{"name":"nobody"}]}`
	// legacy is the answer of servers before version 21.
	legacy = `{"event":"user.list","sessions":[{"id":"3b1ed96ac1bd","name":"bbc","ip":"203.0.113.7","token":"T1","user_id":17,"bytes_sent":500,
		"created_at":1700000000000,"duration":60000,"type":"hls"}]}`
)

// serve is a Flussonic that answers by what is asked, "" for 404, and its control API.
func serve(t testing.TB, answers map[string]string, told *[]string) *Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Method + " " + r.URL.RequestURI()
		if told != nil {
			*told = append(*told, asked)
		}
		text, ok := answers[asked]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(srv.Close)
	c, err := control.NewClient(control.Config{URL: srv.URL, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &Server{client: c}
}

func TestListReadsAllPages(t *testing.T) {
	t.Parallel()
	var got []control.Session
	sum, err := serve(t, map[string]string{
		"GET /streamer/api/v3/sessions?limit=1000":                     page1,
		"GET /streamer/api/v3/sessions?cursor=aWQ9Mg%3D%3D&limit=1000": page2,
	}, nil).List(t.Context(), func(s *control.Session) { got = append(got, *s) })
	if err != nil || sum != (control.Summary{Pages: 2, Rows: 4, Bad: 1}) || len(got) != 2 {
		t.Fatalf("List = %+v, %+v, %v", got, sum, err)
	}
	one, two := got[0], got[1]
	if one.Stream != "bbc" || one.Token != "T1" || one.User != "17" || one.Country != "DE" || one.Bytes != 12345 ||
		!one.Opened.Equal(time.Unix(1700000000, 0)) || one.IP.String() != "203.0.113.7" || one.Ended || one.Age < time.Hour {
		t.Errorf("first = %+v", one)
	}
	if !two.Ended || two.Playing != time.Minute || two.Bytes != 7 {
		t.Errorf("second = %+v", two)
	}
}

func TestListBreaksOff(t *testing.T) {
	t.Parallel()
	endless := map[string]string{}
	for i := range maxPages + 1 {
		endless[fmt.Sprintf("GET /streamer/api/v3/sessions?cursor=%d&limit=1000", i)] = fmt.Sprintf(`{"sessions":[],"next":"%d"}`, i+1)
	}
	endless["GET /streamer/api/v3/sessions?limit=1000"] = `{"sessions":[],"next":"0"}`
	for name, c := range map[string]struct {
		answers map[string]string
		want    error
	}{
		"second page missing":     {map[string]string{"GET /streamer/api/v3/sessions?limit=1000": page1}, control.ErrGone},
		"second page broken":      {map[string]string{"GET /streamer/api/v3/sessions?limit=1000": page1, "GET /streamer/api/v3/sessions?cursor=aWQ9Mg%3D%3D&limit=1000": page2[:50]}, control.ErrAnswer},
		"cursors without an end":  {endless, control.ErrTooLong},
		"a cursor of a megabyte":  {map[string]string{"GET /streamer/api/v3/sessions?limit=1000": `{"sessions":[],"next":"` + strings.Repeat("x", 1<<20) + `"}`}, control.ErrTooLong},
		"neither the old nor new": {nil, control.ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := serve(t, c.answers, nil).List(t.Context(), func(*control.Session) {}); !errors.Is(err, c.want) {
				t.Errorf("List: %v, want %v", err, c.want)
			}
		})
	}
}

func TestOlderServers(t *testing.T) {
	t.Parallel()
	var told []string
	s := serve(t, map[string]string{"GET /flussonic/api/sessions": legacy}, &told)
	for range 2 {
		var got []control.Session
		sum, err := s.List(t.Context(), func(s *control.Session) { got = append(got, *s) })
		if err != nil || sum.Pages != 1 || len(got) != 1 || got[0].ID != "3b1ed96ac1bd" || got[0].Bytes != 500 || got[0].User != "17" {
			t.Fatalf("List = %+v, %v", got, err)
		}
	}
	if want := []string{"GET /streamer/api/v3/sessions?limit=1000", "GET /flussonic/api/sessions", "GET /flussonic/api/sessions"}; !slices.Equal(told, want) {
		t.Errorf("asked %q, want %q", told, want)
	}
}

func TestKickAndReauth(t *testing.T) {
	t.Parallel()
	var told []string
	s := serve(t, map[string]string{
		"DELETE /streamer/api/v3/sessions/a%2F..%2F..%2Fstreams%2Fbbc": "", "POST /streamer/api/v3/sessions/reauth?name=sport%2Fone+%26x%3D1": `{"estimated_count":3}`,
	}, &told)
	if err := s.Kick(t.Context(), "a/../../streams/bbc"); err != nil {
		t.Errorf("Kick: %v; told %q", err, told)
	}
	if err := s.Kick(t.Context(), "unknown"); !errors.Is(err, control.ErrGone) {
		t.Errorf("Kick of an unknown one: %v, want ErrGone", err)
	}
	if err := s.Kick(t.Context(), ".."); !errors.Is(err, control.ErrGone) || len(told) != 2 {
		t.Errorf("Kick of ..: %v; told %q", err, told)
	}
	if err := s.Reauth(t.Context(), "sport/one &x=1"); err != nil {
		t.Errorf("Reauth: %v; told %q", err, told)
	}
	if err := s.Reauth(t.Context(), "unknown"); !errors.Is(err, control.ErrGone) {
		t.Errorf("Reauth of an unknown stream: %v", err)
	}
}

func FuzzList(f *testing.F) {
	for _, seed := range []string{page1, page2, legacy, `{"sessions":[{"id":7,"opened_at":"x","ip":[]}],"next":3}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = control.Rows(bytes.NewReader(data), "sessions", func(r *row) { // any error will do
			s, ok := r.session()
			if ok && (s.ID == "" || access.Clean(s.ID, access.MaxName) != s.ID) || s.Age < 0 || s.Playing < 0 || s.Bytes < 0 {
				t.Errorf("row %+v", s)
			}
		})
	})
}
