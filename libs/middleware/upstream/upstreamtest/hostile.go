package upstreamtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
)

// Hostile holds the kind against upstreams that hang, drip, flood, lie and break: each
// costs its own budget, none is ever a yes, and nothing of them is repeated.
func (s *Suite[O, D]) Hostile(t *testing.T) {
	t.Helper()
	t.Run("heads", s.heads)
	t.Run("bodies", s.bodies)
	t.Run("connections", s.connections)
	t.Run("redirects", s.redirects)
	t.Run("captive pages", s.captive)
}

const okHead = "HTTP/1.1 200 OK\r\nX-Session-Name: alice\r\n"

func (s *Suite[O, D]) heads(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn){
		"silence":                  hold(""),
		"closes without an answer": func(c net.Conn) { _ = c.Close() },
		"not HTTP":                 say("SSH-2.0-OpenSSH_9.2\r\n"),
		"status cut off":           func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 20"); _ = c.Close() },
		"status not a number":      say("HTTP/1.1 2OO OK\r\n\r\n"),
		"header without end":       flood(okHead, "X-Fill: "+strings.Repeat("a", 1000)+"\r\n"),
		"one header without end":   flood(okHead+"X-Fill: ", strings.Repeat("a", 1000)),
		"a header dripping":        drip(okHead+"X-Fill: ", "a"),
		"100 Continue without end": flood("", "HTTP/1.1 100 Continue\r\n\r\n"),
		"103 and then silence":     hold("HTTP/1.1 103 Early Hints\r\n\r\n"),
		"switching protocols":      say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
		"two lengths":              say(okHead + "Content-Length: 1\r\nContent-Length: 2\r\n\r\na"),
		"header with a NUL":        say("HTTP/1.1 200 OK\r\nX\x00: a\r\n\r\n"),
		"garbage":                  flood("\x00\xff\x16\x03", "\x80\x00garbage\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRawBackend(t, answer)
			o := s.options("http://" + b.address + "/check?key=OPERATORSKEY")
			o.Common().Timeout = config.Duration(300 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			a, err := s.open(t, o).Ask(ctx, request())
			if !errors.Is(err, middleware.ErrUnavailable) {
				t.Fatalf("Ask = %+v, %v, want unavailable", a, err)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("Ask took %v of 300ms", took)
			}
			noSecrets(t, err)
		})
	}
}

func noSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"OPERATORSKEY", "VIEWERSTOKEN", "127.0.0.1", "SSH"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("error %q holds %q", err, secret)
		}
	}
}

// bodies are not waited for where they say nothing, and never a yes where they do.
func (s *Suite[O, D]) bodies(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn){
		"dripping":        drip(okHead+"Content-Length: 1000\r\n\r\n", "a"),
		"without end":     flood(okHead+"Connection: close\r\n\r\n", strings.Repeat("a", 4096)),
		"100 MB":          flood(okHead+"Content-Length: 100000000\r\n\r\n", strings.Repeat("{", 4096)),
		"never coming":    hold(okHead + "Content-Length: 10\r\n\r\n"),
		"broken chunking": say(okHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
		"gzip bomb":       flood(okHead+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", "\x1f\x8b\x08"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRawBackend(t, answer)
			o := s.options("http://" + b.address)
			budget := 20 * time.Second
			if s.Reads {
				budget = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), budget)
			defer cancel()
			begin := time.Now()
			a, err := s.open(t, o).Ask(ctx, request())
			switch {
			case s.Reads && !errors.Is(err, middleware.ErrUnavailable):
				t.Errorf("Ask = %+v, %v, want unavailable", a, err)
			case !s.Reads && (err != nil || !a.Allowed || a.User != "alice"):
				t.Errorf("Ask = %+v, %v, want alice", a, err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("the body cost %v", took)
			}
		})
	}
}

func (s *Suite[O, D]) connections(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	secure := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) {}))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) {}))
	t.Cleanup(plain.Close)
	for name, c := range map[string]struct{ url, text string }{
		"connection refused":      {"http://" + closed.Addr().String(), "connected"},
		"unknown name":            {"http://backend.invalid/", "resolved"},
		"unknown certificate":     {secure.URL, "TLS"},
		"TLS where there is none": {strings.Replace(plain.URL, "http:", "https:", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := s.open(t, s.options(c.url)).Ask(t.Context(), request())
			if !errors.Is(err, middleware.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("Ask = %v, want unavailable with %q", err, c.text)
			}
			noSecrets(t, err)
		})
	}
}

// redirects are never followed: the page behind one answers 200 to everybody.
func (s *Suite[O, D]) redirects(t *testing.T) {
	t.Parallel()
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var followed atomic.Int32
			page := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				followed.Add(1)
				w.Header().Set("X-UserId", "everybody")
				_, _ = io.WriteString(w, s.Yes)
			}))
			t.Cleanup(page.Close)
			answer := "HTTP/1.1 " + strconv.Itoa(status) + " Moved\r\nX-UserId: everybody\r\nLocation: " + page.URL + "/login\r\n"
			if status == nethttp.StatusNotModified {
				answer += "\r\n" // which has no body
			} else {
				answer += "Content-Length: " + strconv.Itoa(len(s.Yes)) + "\r\n\r\n" + s.Yes
			}
			b := newRawBackend(t, say(answer))
			a, err := s.open(t, s.options("http://"+b.address)).Ask(t.Context(), request())
			if err != nil || a.Allowed || followed.Load() != 0 {
				t.Errorf("Ask = %+v, %v; followed %d times", a, err, followed.Load())
			}
		})
	}
}

// captive pages answer 200 to everything.
func (s *Suite[O, D]) captive(t *testing.T) {
	t.Parallel()
	b := newRawBackend(t, say("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: "+strconv.Itoa(len(s.Yes))+"\r\n\r\n"+s.Yes))
	t.Run("nothing is expected", func(t *testing.T) {
		t.Parallel()
		const page = "<!DOCTYPE html>\n<html><body>Please sign in</body></html>"
		b := newRawBackend(t, say("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: "+strconv.Itoa(len(page))+"\r\n\r\n"+page))
		a, err := s.open(t, s.options("http://"+b.address)).Ask(t.Context(), request())
		if a.Allowed || !s.Reads && (err != nil || !strings.Contains(a.Text, "web page")) {
			t.Errorf("Ask = %+v, %v, want a no that says what answered", a, err)
		}
	})
	t.Run("a page of the backend's own", func(t *testing.T) {
		t.Parallel()
		answer := "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-UserId: alice\r\nContent-Length: 6\r\n\r\n<html>"
		b := newRawBackend(t, say(answer))
		if a, err := s.open(t, s.options("http://"+b.address)).Ask(t.Context(), request()); !s.Reads && (err != nil || !a.Allowed || a.User != "alice") {
			t.Errorf("Ask = %+v, %v, want alice", a, err)
		}
	})
	for name, expect := range map[string]func(O){
		"expect_header":            func(o O) { o.Common().ExpectHeader = "X-UserId" },
		"expect_header with value": func(o O) { o.Common().ExpectHeader = "Content-Type: application/json" },
		"expect_body":              func(o O) { o.Common().ExpectBody = "yes, you may" },
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options("http://" + b.address)
			expect(o)
			a, err := s.open(t, o).Ask(t.Context(), request())
			if err != nil || a.Allowed || !strings.Contains(a.Text, "expected") {
				t.Errorf("Ask = %+v, %v, want a no that names the expectation", a, err)
			}
		})
	}
}
