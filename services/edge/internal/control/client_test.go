package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func client(t *testing.T, url string, change func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: url, Timeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDoTellsFaultsApart(t *testing.T) {
	t.Parallel()
	var followed bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/redirect":
			http.Redirect(w, r, "/followed", http.StatusFound)
		case "/followed":
			followed = true
		case "/base/401", "/base/403", "/base/404", "/base/500":
			w.WriteHeader(map[string]int{"/base/401": 401, "/base/403": 403, "/base/404": 404, "/base/500": 500}[r.URL.Path])
		case "/base/slow":
			<-r.Context().Done()
		case "/base/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case "/base/header":
			w.Header().Set("X-Big", strings.Repeat("x", 1<<20))
		}
	}))
	t.Cleanup(srv.Close)
	c := client(t, srv.URL+"/base", func(c *Config) { c.Timeout = 2 * time.Second })
	drain := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	for path, want := range map[string]error{
		"/ok": nil, "/redirect": ErrAnswer, "/401": ErrRefused, "/403": ErrRefused, "/404": ErrGone, "/500": ErrAnswer,
		"/endless": ErrTooLong,
	} {
		if err := c.Do(t.Context(), Call{Method: http.MethodGet, Path: path, Read: drain}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	for _, path := range []string{"/slow?token=hunter2", "/header"} {
		err := c.Do(t.Context(), Call{Method: http.MethodGet, Path: path, Read: drain})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), srv.URL) {
			t.Errorf("%s: %v, want an error without the address", path, err)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestPasswordIsReadHereAndAnewWhenItIsRefused(t *testing.T) {
	t.Parallel()
	var password string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, p, _ := r.BasicAuth(); user != "admin" || p != password {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "fl1")
	c := client(t, srv.URL, func(c *Config) { c.User, c.Password = "admin", "file:"+file })
	do := func() error { return c.Do(context.Background(), Call{Method: http.MethodGet, Path: "/"}) }
	if err := do(); !errors.Is(err, ErrSecret) {
		t.Errorf("without the file: %v, want ErrSecret", err)
	}
	for _, p := range []string{"first", "second"} {
		password = p
		if err := os.WriteFile(file, []byte(p+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := do(); p == "second" && !errors.Is(err, ErrRefused) {
			t.Errorf("with the old password: %v, want ErrRefused", err)
		}
		if err := do(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestCertificateIsVerified(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	if err := client(t, srv.URL, nil).Do(t.Context(), Call{Method: http.MethodGet, Path: "/"}); err == nil {
		t.Error("a certificate that nobody knows was believed")
	}
}

func TestSegment(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"6217fd62": "6217fd62", "a/../b": "a%2F..%2Fb", "a?b#c": "a%3Fb%23c", "ä b": "%C3%A4%20b", "..": "", ".": "", "": "",
	} {
		if got, ok := Segment(id); got != want || ok != (want != "") {
			t.Errorf("Segment(%q) = %q, %v; want %q", id, got, ok, want)
		}
	}
}
