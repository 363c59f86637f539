package edge

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

func TestAstraQuestionReachesAWorkerWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	res := b.ask(astraRequest("token=123"))
	wantStatus(t, "vector 31", res, http.StatusOK)
	if got := res.Header.Get("X-Session-Name"); got != "alice" {
		t.Errorf("X-Session-Name = %q, want alice", got)
	}
	wantAsked(t, "vector 31", b, 1)
	m := b.workers.Asked()[0]
	got := []string{m.GetNode(), m.GetCaller(), m.GetStream(), m.GetToken(), m.GetQuery(), m.GetPath(), m.GetHost(),
		m.GetIp(), m.GetUserAgent(), m.GetChannel(), m.GetCallerSession(), m.GetDevice(), m.GetRegion(), m.GetEdge()}
	want := []string{"n1", "astra", "a001", "123", "token=123", "/play/a001/index.m3u8", "live.example.com",
		"10.0.0.5", "VLC/3.0", "a001", "1001", "10.0.0.5 VLC/3.0", "r1", "e1"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("field %d = %q, want %q", i, got[i], want[i])
		}
	}
	if id := uuid.UUID(m.GetId()); id.Version() != 7 || id != decisionID(t, res) {
		t.Errorf("id %s: want the answer's own, version 7", id)
	}
}

func TestAKnownSessionIsAnsweredFromMemory(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		first := b.ask(astraRequest("token=123"))
		for range 5 {
			res := b.ask(astraRequest("token=123"))
			wantStatus(t, "repeat", res, http.StatusOK)
			if decisionID(t, res) != decisionID(t, first) {
				t.Error("a repeat carries another decision's id")
			}
			if res.Header.Get("X-Session-Name") != "alice" {
				t.Error("a repeat has lost X-Session-Name")
			}
		}
		wantStatus(t, "without a token", b.ask(astraRequest("")), http.StatusOK)
		wantAsked(t, "under the lease", b, 1)

		time.Sleep(3 * time.Minute)
		due := astraRequest("other=1")
		due.Header.Set("X-Real-Path", "/play/a001/7.ts")
		wantStatus(t, "lease due", b.ask(due), http.StatusOK)
		wantAsked(t, "lease due", b, 2)
		m, opening := b.workers.Asked()[1], b.workers.Asked()[0]
		if len(m.GetSessionId()) != 16 || m.GetToken() != "123" || m.GetQuery() != opening.GetQuery() || m.GetPath() != opening.GetPath() {
			t.Errorf("re-decision: session %x token %q path %q query %q, want the opening's", m.GetSessionId(), m.GetToken(), m.GetPath(), m.GetQuery())
		}
		wantStatus(t, "renewed", b.ask(astraRequest("")), http.StatusOK)
		wantAsked(t, "renewed lease", b, 2)
	})
}

func TestACallersIDUsedAgainNeverInheritsTheSession(t *testing.T) {
	t.Parallel()
	other := map[string]func(*http.Request){
		"another token":   func(r *http.Request) { r.URL.RawQuery = "token=999" },
		"another channel": func(r *http.Request) { r.Header.Set("X-Channel-ID", "a002") },
		"another address": func(r *http.Request) { r.Header.Set("X-Real-IP", "10.0.0.6") },
		"another player":  func(r *http.Request) { r.Header.Set("X-Real-UA", "Kodi") },
	}
	for name, change := range other {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.ask(astraRequest("token=123"))
			b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
				return edgetest.Deny(m, "bad_token"), nil
			}
			r := astraRequest("token=123")
			change(r)
			wantReason(t, name, b.ask(r), access.BadToken)
			wantAsked(t, name, b, 2)
			if m := b.workers.Asked()[1]; len(m.GetReplaces()) != 16 || len(m.GetSessionId()) != 0 {
				t.Errorf("replaces %x session %x, want the old session replaced", m.GetReplaces(), m.GetSessionId())
			}
			if b.table.count.Load() != 0 {
				t.Error("the old session is still known")
			}
			w := &sweeper{s: b.Service}
			w.round(t.Context(), b.now(), false)
			if s := b.workers.Signs(); len(s) != 1 || !s[0].GetClose() || string(s[0].GetSessionId()) != string(b.workers.Asked()[1].GetReplaces()) {
				t.Errorf("signs = %v, want the close of the old session", s)
			}
		})
	}
}

func TestForwardAuthSegmentsFollowTheirSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wantReason(t, "no session yet", b.ask(segment("/hls/bbc/1.ts")), access.NoSession)
	wantAsked(t, "no session yet", b, 0)
	wantStatus(t, "playlist", b.ask(segment("/hls/bbc/index.m3u8?token=t1")), http.StatusOK)
	wantStatus(t, "rendition", b.ask(segment("/hls/bbc/720p/1.ts")), http.StatusOK)
	wantStatus(t, "segment", b.ask(segment("/hls/bbc/2.ts")), http.StatusOK)
	wantReason(t, "another stream", b.ask(segment("/hls/cnn/1.ts")), access.NoSession)
	wantReason(t, "another player", b.ask(nginxRequest("web1", "/hls/bbc/1.ts", "203.0.113.7", "Kodi")), access.NoSession)
	wantReason(t, "another address", b.ask(nginxRequest("web1", "/hls/bbc/1.ts", "203.0.113.8", "VLC/3.0")), access.NoSession)
	wantStatus(t, "another node of the same edge", b.ask(nginxRequest("web2", "/hls/bbc/3.ts", "203.0.113.7", "VLC/3.0")), http.StatusOK)
	wantAsked(t, "in all", b, 1)
}

func TestSegmentsByTokenFollowNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	uri := "/hls/bbc/index.m3u8?token=t1"
	wantStatus(t, "playlist", b.ask(nginxRequest("strict", uri, "203.0.113.7", "VLC")), http.StatusOK)
	wantReason(t, "segment", b.ask(nginxRequest("strict", "/hls/bbc/1.ts", "203.0.113.7", "VLC")), access.NoToken)
	wantStatus(t, "with its token", b.ask(nginxRequest("strict", "/hls/bbc/1.ts?token=t1", "203.0.113.7", "VLC")), http.StatusOK)
	wantAsked(t, "in all", b, 1)
}

func TestATokenlessStreamReachesAWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wantStatus(t, "free", b.ask(segment("/free/one/index.m3u8")), http.StatusOK)
	wantStatus(t, "free again", b.ask(segment("/free/one/1.ts")), http.StatusOK)
	wantStatus(t, "by token", b.ask(nginxRequest("strict", "/free/one/1.ts", "203.0.113.9", "VLC")), http.StatusOK)
	wantAsked(t, "in all", b, 2)
}

// Behind one address and player a bad link and a good one come within a second.
func TestABadLinkDoesNotSpeakForAGoodOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
		if m.GetQuery() == "md5=good" {
			return edgetest.Allow(m), nil
		}
		return edgetest.Deny(m, "bad_token"), nil
	}
	wantReason(t, "bad link", b.ask(segment("/free/one/index.m3u8?md5=bad")), access.BadToken)
	wantReason(t, "bad link again", b.ask(segment("/free/one/index.m3u8?md5=bad")), access.BadToken)
	wantStatus(t, "good link", b.ask(segment("/free/one/index.m3u8?md5=good")), http.StatusOK)
	wantAsked(t, "in all", b, 2)
}

func TestSessionKeyHasNoNodeForProxies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := map[string]bool{}
	for _, node := range []string{"web1", "web2"} {
		b.ask(nginxRequest(node, "/hls/bbc/index.m3u8?token=t1", "203.0.113.7", "VLC"))
		b.table.each(func(s *session) { b.table.remove(s) })
	}
	for _, m := range b.workers.Asked() {
		keys[string(m.GetSessionKey())] = true
	}
	if len(keys) != 1 {
		t.Errorf("two nodes before one content make %d keys, want 1", len(keys))
	}
}

func TestEqualQuestionsAreOne(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			time.Sleep(100 * time.Millisecond)
			return edgetest.Allow(m), nil
		}
		var wg sync.WaitGroup
		ids := make([]uuid.UUID, 200)
		for i := range ids {
			wg.Go(func() {
				r := astraRequest("token=123")
				ctx, cancel := context.WithCancel(r.Context())
				if i%2 == 0 {
					cancel() // half of the callers have hung up; the others wait with them
				}
				defer cancel()
				res := b.ask(r.WithContext(ctx))
				ids[i] = decisionID(t, res)
				if res.StatusCode != http.StatusOK {
					t.Errorf("status %d, want 200", res.StatusCode)
				}
			})
		}
		wg.Wait()
		wantAsked(t, "200 equal questions", b, 1)
		for _, id := range ids {
			if id != ids[0] {
				t.Fatal("equal questions got different decisions")
			}
		}
		if got := b.table.get(key(b.keyer, questionOf(t, b, astraRequest("token=123")))).requests.Load(); got != 200 {
			t.Errorf("session counts %d requests, want 200", got)
		}
	})
}

func questionOf(t *testing.T, b *bench, r *http.Request) *question {
	t.Helper()
	kind, name := route(r.URL.Path)
	n := b.view.Load().nodes[name]
	q := &question{node: n}
	if err := b.adapters[kind].Parse(r, n, peerOf(r.RemoteAddr), &q.Request); err != nil {
		t.Fatal(err)
	}
	q.prefix = prefixOf(q.IP)
	return q
}

func TestADenialIsRememberedForASecond(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			r := edgetest.Deny(m, "limit")
			r.Location = "https://tv.example.com/too-many"
			return r, nil
		}
		first := b.ask(astraRequest("token=123"))
		wantReason(t, "first", first, access.Limit)
		for range 9 {
			res := b.ask(astraRequest("token=123"))
			wantReason(t, "repeat", res, access.Limit)
			if res.Header.Get("X-Location") != "https://tv.example.com/too-many" || decisionID(t, res) != decisionID(t, first) {
				t.Error("a repeated denial differs from the first")
			}
		}
		wantAsked(t, "within the second", b, 1)
		b.report(t)
		if got := b.journal.Repeats(decisionID(t, first)); got != 9 {
			t.Errorf("repeats = %d, want 9", got)
		}
		p := projection()
		p.Revision = 2
		b.setPolicy(t, p)
		wantReason(t, "new policy", b.ask(astraRequest("token=123")), access.Limit)
		wantAsked(t, "new policy", b, 2)
		time.Sleep(denialMemory)
		wantReason(t, "a second later", b.ask(astraRequest("token=123")), access.Limit)
		wantAsked(t, "a second later", b, 3)
	})
}
