package edge_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// proxied runs Debian's nginx with the snippet of the README, word for word but for
// addresses, before files that any path finds.
func proxied(t *testing.T, c *cluster) (url string) {
	t.Helper()
	readme, err := os.ReadFile("internal/caller/forwardauth/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, ok := strings.Cut(string(readme), "```nginx\n")
	if !ok {
		t.Fatal("no nginx snippet in the README")
	}
	snippet, _, _ = strings.Cut(snippet, "```")
	dir := t.TempDir()
	for _, d := range []string{"hls/a", "hls/limit", "hls/free"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "1.ts"), []byte("segment"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddress(t)
	conf := strings.NewReplacer("127.0.0.1:8480", strings.TrimPrefix(c.url, "http://"), "listen 8080", "listen "+addr,
		"/srv/media", dir).Replace(snippet)
	conf = "daemon off;\nuser root;\npid " + dir + "/pid;\nerror_log " + dir + "/error.log;\nevents {}\nhttp {\naccess_log off;\n" +
		"client_body_temp_path " + dir + "/b;\nproxy_temp_path " + dir + "/p;\nfastcgi_temp_path " + dir + "/f;\n" +
		"uwsgi_temp_path " + dir + "/u;\nscgi_temp_path " + dir + "/s;\n" + conf + "}\n"
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, file, dir)
	await(t, "nginx", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return "http://" + addr
}

func run(t *testing.T, conf, dir string) {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		bin = "/usr/sbin/nginx"
	}
	cmd := exec.Command(bin, "-e", dir+"/error.log", "-p", dir, "-c", conf)
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting nginx (Debian: nginx-light): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Errorf("nginx: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(dir + "/error.log")
			t.Logf("nginx says: %s%s", out, log)
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestNginxWithTheREADMEsSnippet(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.set(func(_ context.Context, _ string, m *usherv1.AuthRequest) *usherv1.AuthReply {
		switch {
		case m.GetStream() == "hls/limit":
			r := edgetest.Deny(m, "limit")
			r.Location = "https://tv.example.com/too-many"
			return r
		case m.GetStream() != "hls/a" || m.GetToken() != "good" || m.GetIp() != "127.0.0.1" || m.GetUserAgent() != "VLC":
			return edgetest.Deny(m, "bad_token")
		}
		return edgetest.Allow(m)
	})
	url := proxied(t, c)
	client := &http.Client{
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	get := func(method, path string, headers map[string]string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", "VLC")
		for k, v := range headers {
			r.Header.Set(k, v)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(res.Body)
		return res, string(body)
	}
	forged := map[string]string{
		"X-Original-URI": "/hls/a/1.ts?token=good", "X-Original-URL": "http://x/hls/a/1.ts?token=good",
		"X-Original-Method": "GET", "X-Real-IP": "1.2.3.4", "X-Forwarded-Uri": "/hls/a/1.ts?token=good", "X-Forwarded-For": "1.2.3.4",
	}
	for _, tc := range []struct {
		what, method, path string
		headers            map[string]string
		status             int
		reason, location   string
	}{
		{"no token yet", "GET", "/hls/a/1.ts", nil, 403, "no_session", ""},
		{"bad token", "GET", "/hls/a/1.ts?token=bad", nil, 403, "bad_token", ""},
		{"forged headers", "GET", "/hls/free/1.ts", forged, 403, "no_session", ""},
		{"limit", "GET", "/hls/limit/1.ts?token=good", nil, 302, "", "https://tv.example.com/too-many"},
		{"good token", "GET", "/hls/a/1.ts?token=good", nil, 200, "", ""},
		{"segment", "GET", "/hls/a/1.ts", nil, 200, "", ""},
		{"segment, headers forged in vain", "GET", "/hls/a/1.ts", forged, 200, "", ""},
		{"writing", "DELETE", "/hls/a/1.ts?token=good", nil, 403, "bad_request", ""},
		{"climbing", "GET", "/hls/a/%2e%2e/free/1.ts", nil, 403, "bad_request", ""},
	} {
		res, body := get(tc.method, tc.path, tc.headers)
		if res.StatusCode != tc.status || res.Header.Get("X-Auth-Reason") != tc.reason && tc.status == 403 ||
			res.Header.Get("Location") != tc.location {
			t.Errorf("%s: %d, reason %q, location %q, want %d, %q, %q", tc.what, res.StatusCode,
				res.Header.Get("X-Auth-Reason"), res.Header.Get("Location"), tc.status, tc.reason, tc.location)
		}
		if tc.status == 200 && body != "segment" {
			t.Errorf("%s: body %q, want the file", tc.what, body)
		}
	}
	if got := c.asked.Load(); got != 3 {
		t.Errorf("workers were asked %d times, want 3: bad token, limit, good token", got)
	}
}
