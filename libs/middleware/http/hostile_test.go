package http

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
)

func TestHostileBackends(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nX-Session-Name: alice\r\n"
	for name, answer := range map[string]func(net.Conn){
		"silence":                  func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"closes without an answer": func(c net.Conn) { _ = c.Close() },
		"not HTTP":                 func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") },
		"status cut off":           func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 20"); _ = c.Close() },
		"status not a number":      func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 2OO OK\r\n\r\n") },
		"header without end":       func(c net.Conn) { flood(c, ok, "X-Fill: "+strings.Repeat("a", 1000)+"\r\n") },
		"one header without end":   func(c net.Conn) { flood(c, ok+"X-Fill: ", strings.Repeat("a", 1000)) },
		"a header dripping":        func(c net.Conn) { drip(c, ok+"X-Fill: ", "a") },
		"100 Continue without end": func(c net.Conn) { flood(c, "", "HTTP/1.1 100 Continue\r\n\r\n") },
		"103 and then silence": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
			_, _ = c.Read(make([]byte, 1))
		},
		"switching protocols": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		},
		"two lengths":       func(c net.Conn) { _, _ = io.WriteString(c, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\na") },
		"header with a NUL": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX\x00: a\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newConnBackend(t, answer)
			o := NewOptions()
			o.URL = "http://" + b.address + "/check?key=OPERATORSKEY"
			o.Timeout = config.Duration(300 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			a, err := newMiddleware(t, o).Ask(ctx, &access.Request{Query: "token=VIEWERSTOKEN"})
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

// flood sends first and then next for ever.
func flood(c net.Conn, first, next string) {
	_, err := io.WriteString(c, first)
	for err == nil {
		_, err = io.WriteString(c, next)
	}
}

// drip sends first and then next, slowly.
func drip(c net.Conn, first, next string) {
	_, err := io.WriteString(c, first)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		<-tick.C
		_, err = io.WriteString(c, next)
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

func TestBodiesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nX-Session-Name: alice\r\n"
	for name, answer := range map[string]func(net.Conn){
		"dripping":    func(c net.Conn) { drip(c, ok+"Content-Length: 1000\r\n\r\n", "a") },
		"without end": func(c net.Conn) { flood(c, ok+"Connection: close\r\n\r\n", strings.Repeat("a", 4096)) },
		"never coming": func(c net.Conn) {
			_, _ = io.WriteString(c, ok+"Content-Length: 10\r\n\r\n")
			_, _ = c.Read(make([]byte, 1))
		},
		"broken chunking": func(c net.Conn) { _, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\n") },
		"gzip bomb":       func(c net.Conn) { flood(c, ok+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", "\x1f\x8b\x08") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newConnBackend(t, answer)
			o := NewOptions()
			o.URL = "http://" + b.address
			o.Timeout = config.Duration(20 * time.Second)
			begin := time.Now()
			a, err := newMiddleware(t, o).Ask(t.Context(), &access.Request{})
			if err != nil || !a.Allowed || a.User != "alice" {
				t.Errorf("Ask = %+v, %v, want alice", a, err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("the body cost %v", took)
			}
		})
	}
}

func TestConnectionFaults(t *testing.T) {
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
			o := NewOptions()
			o.URL = c.url
			o.Timeout = config.Duration(5 * time.Second)
			_, err := newMiddleware(t, o).Ask(t.Context(), &access.Request{Query: "token=VIEWERSTOKEN"})
			if !errors.Is(err, middleware.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("Ask = %v, want unavailable with %q", err, c.text)
			}
			noSecrets(t, err)
		})
	}
}
