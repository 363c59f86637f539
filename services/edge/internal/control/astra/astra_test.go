package astra

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/control"
)

// published is the answer of today's documents, with values; its ids are texts.
const published = `{"sessions": [
	{"client_id": "1001", "channel_id": "a001", "channel_name": "News", "addr": "10.0.0.5", "uptime": 90},
	{"client_id": "1002", "channel_id": "a002", "channel_name": "Sport", "addr": "2001:db8::5", "uptime": 0}]}`

// older is an answer with numbers, as the text of 2018 has it.
const older = `[{"client_id": 1001, "channel_id": "a001", "addr": "10.0.0.5", "uptime": 90}]`

// serve is an Astra that answers every command with text, and its control API.
func serve(t testing.TB, text string, told *[]string) *Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if told != nil {
			*told = append(*told, r.Method+" "+r.URL.Path+" "+string(body))
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

func TestList(t *testing.T) {
	t.Parallel()
	var told []string
	var got []control.Session
	sum, err := serve(t, published, &told).List(t.Context(), func(s *control.Session) { got = append(got, *s) })
	if err != nil || sum != (control.Summary{Pages: 1, Rows: 2}) || len(got) != 2 {
		t.Fatalf("List = %+v, %v, %v", got, sum, err)
	}
	one := got[0]
	if one.ID != "1001" || one.Stream != "a001" || one.IP.String() != "10.0.0.5" || one.Age != 90*time.Second || one.Playing != one.Age {
		t.Errorf("first = %+v", one)
	}
	if want := []string{`POST /control/ {"cmd":"sessions"}`}; !slices.Equal(told, want) {
		t.Errorf("asked %q, want %q", told, want)
	}
	if _, err := serve(t, `{"error":"unauthorized"}`, nil).List(t.Context(), func(*control.Session) {}); !errors.Is(err, control.ErrAnswer) {
		t.Errorf("an error as answer: %v", err)
	}
}

func TestKickWritesIdsAsTheListDoes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		published: `POST /control/ {"cmd":"close-session","id":"1001"}`,
		older:     `POST /control/ {"cmd":"close-session","id":1001}`,
	} {
		var told []string
		s := serve(t, text, &told)
		if _, err := s.List(t.Context(), func(*control.Session) {}); err != nil {
			t.Fatal(err)
		}
		if err := s.Kick(t.Context(), "1001"); err != nil || told[1] != want {
			t.Errorf("told %q, %v; want %q", told[1], err, want)
		}
	}
	var told []string
	if err := serve(t, "", &told).Kick(t.Context(), "a\"},{\"cmd\":\"restart"); err != nil || told[0] != `POST /control/ {"cmd":"close-session","id":"a\"},{\"cmd\":\"restart"}` {
		t.Errorf("told %q, %v", told, err)
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte(published))
	f.Add([]byte(older))
	f.Add([]byte(`{"sessions":[{"client_id":{},"uptime":-1e99},7]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = control.Rows(bytes.NewReader(data), "sessions", func(r *row) { // any error will do
			s, ok := r.session()
			if ok && (s.ID == "" || access.Clean(s.ID, access.MaxName) != s.ID) || s.Age < 0 || s.Playing < 0 || s.Ended {
				t.Errorf("row %+v", s)
			}
		})
	})
}
