package edge

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
)

// scribe stands for the workers that write playlists.
type scribe struct {
	mu    sync.Mutex
	asked []*usherv1.PlaylistRequest
	fail  int // how many requests fail first
	wait  chan struct{}
}

// AskPlaylist implements Lists.
func (s *scribe) AskPlaylist(ctx context.Context, _, _ string, req *usherv1.PlaylistRequest) (*usherv1.PlaylistReply, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req)
	failing := len(s.asked) <= s.fail
	s.mu.Unlock()
	if s.wait != nil {
		<-s.wait
	}
	switch {
	case failing:
		return nil, bus.ErrNoWorker
	case strings.HasPrefix(req.GetToken(), "busy"):
		return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_BUSY}, nil
	case strings.HasPrefix(req.GetToken(), "bad"):
		return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_DECIDED, Reason: "blocked", Text: "subscriber anna is blocked"}, nil
	}
	return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_DECIDED, Name: "anna", Body: []byte("#EXTM3U\n")}, nil
}

func playlistBench(t *testing.T) (*bench, *scribe) {
	t.Helper()
	b, s := setup(t), new(scribe)
	b.playlists = newPlaylists(s)
	p := projection()
	p.Playlists = []*usherv1.PlaylistView{{Check: "own", Trust: []string{"10.9.0.0/16"}}}
	b.setPolicy(t, p)
	return b, s
}

func fetch(b *bench, method, path, from, forwarded string) (*http.Response, string) {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = from + ":4000"
	if forwarded != "" {
		r.Header.Set("X-Forwarded-For", forwarded)
	}
	res := b.ask(r)
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func TestPlaylists(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path, from, forwarded string
		status                        int
		body, asked                   string // asked: token and address that reach the workers
	}{
		"a playlist":          {"GET", "/v1/playlist/own/tok%2Fen", "203.0.113.1", "", 200, "#EXTM3U\n", "tok/en 203.0.113.1"},
		"its head":            {"HEAD", "/v1/playlist/own/token", "203.0.113.1", "", 200, "", "token 203.0.113.1"},
		"a proxy is believed": {"GET", "/v1/playlist/own/token", "10.9.0.1", "1.2.3.4, 198.51.100.7", 200, "#EXTM3U\n", "token 198.51.100.7"},
		"a stranger is not":   {"GET", "/v1/playlist/own/token", "203.0.113.1", "198.51.100.7", 200, "#EXTM3U\n", "token 203.0.113.1"},
		"a mute proxy":        {"GET", "/v1/playlist/own/token", "10.9.0.1", "", 400, "X-Forwarded-For", ""},
		"blocked":             {"GET", "/v1/playlist/own/bad-token", "203.0.113.1", "", 403, "no playlist: the subscriber is blocked\n", "bad-token 203.0.113.1"},
		"no worker has room":  {"GET", "/v1/playlist/own/busy-token", "203.0.113.1", "", 503, "try again", "busy-token 203.0.113.1"},
		"not a public check":  {"GET", "/v1/playlist/other/token", "203.0.113.1", "", 404, "no such playlist", ""},
		"no token":            {"GET", "/v1/playlist/own/", "203.0.113.1", "", 404, "no such playlist", ""},
		"nothing":             {"GET", "/v1/playlist", "203.0.113.1", "", 404, "no such playlist", ""},
		"a control character": {"GET", "/v1/playlist/own/a%00b", "203.0.113.1", "", 400, "cannot be read", ""},
		"a token of 5000":     {"GET", "/v1/playlist/own/" + strings.Repeat("x", 5000), "203.0.113.1", "", 400, "cannot be read", ""},
		"another method":      {"POST", "/v1/playlist/own/token", "203.0.113.1", "", 405, "GET", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, s := playlistBench(t)
			res, body := fetch(b, c.method, c.path, c.from, c.forwarded)
			if res.StatusCode != c.status || !strings.Contains(body, c.body) || c.body == "" && body != "" {
				t.Errorf("answer = %d %q, want %d %q", res.StatusCode, body, c.status, c.body)
			}
			asked := ""
			if len(s.asked) > 0 {
				asked = s.asked[0].GetToken() + " " + s.asked[0].GetIp()
			}
			if asked != c.asked {
				t.Errorf("workers were asked for %q, want %q", asked, c.asked)
			}
			if got := res.Header.Get("Cache-Control"); got != "private, no-store" {
				t.Errorf("Cache-Control = %q", got)
			}
			if c.status == http.StatusOK && (res.Header.Get("Content-Type") != "application/x-mpegurl" ||
				res.Header.Get("Content-Disposition") != `attachment; filename="anna.m3u"`) {
				t.Errorf("header = %v", res.Header)
			}
			if strings.Contains(body, "anna is") {
				t.Errorf("an operator's words reach a stranger: %s", body)
			}
		})
	}
}

func TestPlaylistAsksASecondWorker(t *testing.T) {
	t.Parallel()
	b, s := playlistBench(t)
	s.fail = 1
	if res, _ := fetch(b, "GET", "/v1/playlist/own/token", "203.0.113.1", ""); res.StatusCode != http.StatusOK || len(s.asked) != 2 {
		t.Errorf("status %d after %d requests, want 200 after 2", res.StatusCode, len(s.asked))
	}
}

func TestPlaylistRefusalsAreAuditedAndSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := playlistBench(t)
		var first string
		for i := range refusalsPerMinute {
			res, _ := fetch(b, "GET", "/v1/playlist/own/bad-"+strconv.Itoa(i), "203.0.113.1", "")
			if res.StatusCode != http.StatusForbidden || res.Header.Get("X-Usher-Reason") != "blocked" {
				t.Fatalf("try %d: %d %v", i, res.StatusCode, res.Header)
			}
			if first == "" {
				first = res.Header.Get("X-Usher-Decision")
			} else if id := res.Header.Get("X-Usher-Decision"); id != first {
				t.Fatalf("try %d has a row of its own", i)
			}
		}
		if res, _ := fetch(b, "GET", "/v1/playlist/own/token", "203.0.113.1", ""); res.StatusCode != http.StatusTooManyRequests || len(s.asked) != refusalsPerMinute {
			t.Errorf("after %d refusals: %d, want 429 without asking", refusalsPerMinute, res.StatusCode)
		}
		if res, _ := fetch(b, "GET", "/v1/playlist/own/token", "203.0.113.2", ""); res.StatusCode != http.StatusOK {
			t.Errorf("another address: %d, want 200", res.StatusCode)
		}
		time.Sleep(time.Minute + time.Second)
		for i := range playlistsPerMinute + 1 {
			res, _ := fetch(b, "GET", "/v1/playlist/own/token", "203.0.113.1", "")
			if want := http.StatusOK + 229*(i/playlistsPerMinute); res.StatusCode != want {
				t.Fatalf("playlist %d a minute later: %d, want %d", i, res.StatusCode, want)
			}
		}
	})
}

func TestPlaylistsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := playlistBench(t)
		s.wait = make(chan struct{})
		var under sync.WaitGroup
		for i := range playlistsAtOnce {
			under.Go(func() { fetch(b, "GET", "/v1/playlist/own/token", "203.0.113."+strconv.Itoa(i+1), "") })
		}
		synctest.Wait()
		if res, _ := fetch(b, "GET", "/v1/playlist/own/token", "198.51.100.1", ""); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d, want 503", res.StatusCode)
		}
		close(s.wait)
		under.Wait()
	})
}
