package aliaser

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usher.internal/libs/middleware"
)

// service answers as told and keeps the last question.
type service struct {
	status int
	body   string
	kind   string
	asked  atomic.Int32
	last   atomic.Pointer[http.Request]
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.last.Store(r)
	w.Header().Set("Content-Type", s.kind)
	if s.status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(s.status)
	_, _ = w.Write([]byte(s.body)) // the asker may have gone
}

func setup(t *testing.T, s *service, query string) *Aliaser {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	a, err := New(Options{URL: server.URL + "/names" + query, Timeout: 5 * time.Second, Cache: time.Minute}, transport, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status     int
		kind, body string
		want       string
		away       bool
	}{
		"plain text":              {200, "text/plain", "clock\r\n", "clock", false},
		"json":                    {200, "application/json; charset=utf-8", `{"name": "a/b", "more": 1}`, "a/b", false},
		"json without its type":   {200, "text/plain", ` {"name":"a"}`, "a", false},
		"empty":                   {200, "text/plain", " \n", "", false},
		"empty json":              {200, "application/json", `{}`, "", false},
		"false":                   {200, "application/json", `false`, "", false},
		"not found":               {404, "text/html", "<html>no</html>", "", false},
		"forbidden":               {403, "text/plain", "clock", "", false},
		"gone":                    {410, "", "", "", false},
		"no content":              {204, "", "", "", false},
		"a page":                  {200, "text/html", "clock", "", true},
		"a page without a type":   {200, "", "<p>clock</p>", "", true},
		"two lines":               {200, "text/plain", "a\nb", "", true},
		"broken json":             {200, "application/json", `{"name": "a`, "", true},
		"a number":                {200, "application/json", `{"name": 7}`, "", true},
		"a name with a slash":     {200, "text/plain", "/clock", "", true},
		"a name with a NUL":       {200, "text/plain", "a\x00b", "", true},
		"a name that is too long": {200, "text/plain", strings.Repeat("a", 257), "", true},
		"a hundred megabytes":     {200, "text/plain", strings.Repeat("a", 5<<20), "", true},
		"redirect":                {302, "text/plain", "clock", "", true},
		"its own fault":           {500, "text/plain", "clock", "", true},
		"who are you":             {401, "text/plain", "clock", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := setup(t, &service{status: tt.status, kind: tt.kind, body: tt.body}, "")
			got, err := a.Stream(t.Context(), "asked")
			if got != tt.want || errors.Is(err, middleware.ErrUnavailable) != tt.away {
				t.Errorf("Stream = %q, %v, want %q, unavailable %v", got, err, tt.want, tt.away)
			}
		})
	}
}

func TestTheNameGoesInTheQueryAndIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := &service{status: 200, body: "clock"}
	a := setup(t, s, "?key=1")
	for range 3 {
		if got, err := a.Stream(t.Context(), "a&name=b/канал"); got != "clock" || err != nil {
			t.Fatalf("Stream = %q, %v", got, err)
		}
	}
	r := s.last.Load()
	if got := r.URL.Query(); got.Get("key") != "1" || len(got["name"]) != 1 || got.Get("name") != "a&name=b/канал" || r.URL.Path != "/names" {
		t.Errorf("asked %s, want key=1 and the one name", r.URL)
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	good := Options{URL: "http://a/", Timeout: time.Second}
	for name, change := range map[string]func(*Options){
		"no url": func(o *Options) { o.URL = "" }, "ftp": func(o *Options) { o.URL = "ftp://a/" },
		"user": func(o *Options) { o.URL = "http://u:p@a/" }, "fragment": func(o *Options) { o.URL = "http://a/#x" },
		"broken": func(o *Options) { o.URL = "http://a:b:c/" }, "spaces": func(o *Options) { o.URL = "http://a/?a b" },
		"no time": func(o *Options) { o.Timeout = 0 }, "negative cache": func(o *Options) { o.Cache = -1 },
	} {
		o := good
		change(&o)
		if _, err := New(o, http.DefaultTransport, time.Now, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"clock", `{"name": "a"}`, "false", "<html>", "{", ""} {
		f.Add("text/plain", []byte(s))
		f.Add("application/json", []byte(s))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		name, err := parseAnswer(kind, body)
		if err == nil && (len(name) > 256 || strings.ContainsAny(name, "\x00\n<>") || strings.HasPrefix(name, "/")) {
			t.Errorf("parseAnswer(%q, %q) = %q, which is no name", kind, body, name)
		}
	})
}
