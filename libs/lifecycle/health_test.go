package lifecycle_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.internal/libs/lifecycle"
)

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestAdminMux(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "x_total"}))
	var h lifecycle.Health
	mux := lifecycle.AdminMux(&h, reg)
	var nats, disk error
	h.Check("nats", func() error { return errors.New("replaced below") })
	h.Check("nats", func() error { return nats })
	h.Check("policy", func() error { return nil })
	h.Alive("disk", func() error { return disk })
	ask := func(what, path string, code int, body string) {
		t.Helper()
		if c, b := get(t, mux, "GET", path); c != code || b != body {
			t.Errorf("%s: %s = %d %s, want %d %s", what, path, c, b, code, body)
		}
	}
	ask("all well", "/healthz", 200, `{"ok":true}`)
	ask("all well", "/readyz", 200, `{"ok":true}`)
	nats = errors.New("not connected")
	ask("nats away", "/readyz", 503, `{"ok":false,"failing":{"nats":"not connected"}}`)
	ask("nats away", "/healthz", 200, `{"ok":true}`)
	disk = errors.New("frozen")
	ask("disk frozen", "/healthz", 503, `{"ok":false,"failing":{"disk":"frozen"}}`)
	if c, b := get(t, mux, "GET", "/metrics"); c != 200 || !strings.Contains(b, "x_total 0") {
		t.Errorf("/metrics = %d %s", c, b)
	}
	if c, _ := get(t, mux, "POST", "/readyz"); c != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d", c)
	}
	if c, _ := get(t, mux, "GET", "/"); c != 404 {
		t.Errorf("/ = %d", c)
	}
}

func TestHealthsZeroValueIsWell(t *testing.T) {
	t.Parallel()
	var h lifecycle.Health
	if f := h.Ready(); len(f) != 0 {
		t.Errorf("Ready = %v", f)
	}
}

func TestAdminServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	begun, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- lifecycle.Run(ctx, log, lifecycle.Admin(l, h, log)) }()
	answered := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-begun
	cancel() // what has begun is finished
	close(release)
	if got := <-answered; got != "done" {
		t.Errorf("answer = %q", got)
	}
	select {
	case err := <-ran:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it doesn't stop")
	}
	if err := lifecycle.Run(context.Background(), log, lifecycle.Admin(l, h, log)); err == nil {
		t.Error("serving a closed listener went well")
	}
}
