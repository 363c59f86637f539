package edge

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
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
		wantStatus(t, "lease due", b.ask(astraRequest("other=1")), http.StatusOK)
		wantAsked(t, "lease due", b, 2)
		m, opening := b.workers.Asked()[1], b.workers.Asked()[0]
		if len(m.GetSessionId()) != 16 || m.GetToken() != "123" || m.GetQuery() != opening.GetQuery() {
			t.Errorf("re-decision: session %x token %q query %q, want the opening's", m.GetSessionId(), m.GetToken(), m.GetQuery())
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

func TestWhatTheEdgeRefusesAlone(t *testing.T) {
	t.Parallel()
	from := func(r *http.Request, addr string) *http.Request { r.RemoteAddr = addr; return r }
	at := func(r *http.Request, path string) *http.Request { r.URL.Path = path; return r }
	without := func(name string) *http.Request { r := astraRequest("token=1"); r.Header.Del(name); return r }
	cases := map[string]struct {
		r    *http.Request
		want access.Reason
	}{
		"unknown node":              {at(astraRequest("token=1"), "/v1/astra/nx/check"), access.UnknownNode},
		"unknown caller":            {at(astraRequest("token=1"), "/v1/wowza/n1"), access.UnknownNode},
		"no caller at all":          {at(astraRequest("token=1"), "/"), access.UnknownNode},
		"node of another kind":      {at(astraRequest("token=1"), "/v1/nginx/n1"), access.UnknownNode},
		"another edge's node":       {nginxRequest("far", "/a/b?token=1", "1.2.3.4", "x"), access.WrongEdge},
		"vector 41: wrong source":   {from(astraRequest("token=1"), "127.0.0.1:9"), access.WrongSource},
		"wrong source, IPv6":        {from(astraRequest("token=1"), "[2001:db8::1]:9"), access.WrongSource},
		"source that is no address": {from(astraRequest("token=1"), "@"), access.WrongSource},
		"no session id":             {without("X-Session-ID"), access.BadRequest},
		"no address":                {without("X-Real-IP"), access.BadRequest},
		"vector 5: token twice":     {astraRequest("token=K1&token=K2"), access.BadRequest},
		"vector 7: token as array":  {astraRequest("token[]=K1"), access.BadRequest},
		"bad escape":                {astraRequest("token=%zz"), access.BadRequest},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			first := b.ask(c.r)
			wantReason(t, name, first, c.want)
			wantAsked(t, name, b, 0)
			for range 3 {
				if again := b.ask(c.r); decisionID(t, again) != decisionID(t, first) {
					t.Error("a repeat has a row of its own")
				}
			}
			b.report(t)
			rows := b.journal.Rows()
			if len(rows) != 1 || uuid.UUID(rows[0].GetId()) != decisionID(t, first) ||
				rows[0].GetReason() != string(c.want) || rows[0].GetOutcome() != "deny" {
				t.Fatalf("rows = %v, want one %s under the answer's id", rows, c.want)
			}
			if got := b.journal.Repeats(decisionID(t, first)); got != 3 {
				t.Errorf("repeats = %d, want 3", got)
			}
		})
	}
}

func TestFourInSixPeersAreTheirIPv4Selves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := astraRequest("token=1")
	r.RemoteAddr = "[::ffff:10.1.0.9]:4000"
	r.Header.Set("X-Real-IP", "::ffff:10.0.0.5")
	wantStatus(t, "4-in-6", b.ask(r), http.StatusOK)
	if got := b.workers.Asked()[0].GetIp(); got != "10.0.0.5" {
		t.Errorf("ip = %q, want 10.0.0.5", got)
	}
}

func TestRefusalsOfManyAddressesShareABucket(t *testing.T) {
	t.Parallel()
	r := newRefusals()
	rows := map[uuid.UUID]bool{}
	a := netip.MustParseAddr("2001:db8::")
	for range 3 * maxRefusals {
		a = a.Next()
		id, _ := r.note(refusal{a, "n", access.WrongSource}, 1, uuid.New)
		rows[id] = true
	}
	if len(r.rows) > maxRefusals+1 || len(rows) > maxRefusals+1 {
		t.Errorf("%d rows for %d entries, want at most %d", len(rows), len(r.rows), maxRefusals+1)
	}
	r.sweep(instant(2 * window))
	if len(r.rows) != 0 {
		t.Error("rows stay after their minute")
	}
}

func TestAttemptsInsideTheBudget(t *testing.T) {
	t.Parallel()
	type reply struct {
		r   *usherv1.AuthReply
		err error
	}
	busy := reply{r: edgetest.Status(usherv1.AuthReply_STATUS_BUSY)}
	internal := reply{r: edgetest.Status(usherv1.AuthReply_STATUS_INTERNAL)}
	none := reply{err: bus.ErrNoWorker}
	silent := reply{err: bus.ErrTimeout}
	nonsense := reply{r: &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "allow"}}
	cases := map[string]struct {
		uri     string
		replies []reply // then an allow
		want    int
		asks    int
	}{
		"busy, then another":                {"/hls/a/i?token=t", []reply{busy, busy}, 200, 3},
		"internal, then another":            {"/hls/a/i?token=t", []reply{internal}, 200, 2},
		"nobody, then somebody":             {"/hls/a/i?token=t", []reply{none, none, none}, 200, 4},
		"a reply that is none":              {"/hls/a/i?token=t", []reply{nonsense}, 200, 2},
		"silence, then another":             {"/hls/a/i?token=t", []reply{silent}, 200, 2},
		"silence twice":                     {"/hls/a/i?token=t", []reply{silent, silent}, 403, 2},
		"silence of an upstream is the end": {"/portal/a/i?token=t", []reply{silent}, 403, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, func(t *testing.T, b *bench) {
				n := 0
				b.workers.Decide = func(ctx context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
					n++
					if n > len(c.replies) {
						return edgetest.Allow(m), nil
					}
					if r := c.replies[n-1]; r != silent {
						return r.r, r.err
					}
					<-ctx.Done()
					return nil, bus.ErrTimeout
				}
				begin := time.Now()
				wantStatus(t, name, b.ask(segment(c.uri)), c.want)
				wantAsked(t, name, b, c.asks)
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("took %v, more than the budget", took)
				}
			})
		})
	}
}

func TestAWorkersClockIsTaken(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		const off = time.Hour
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			sec, nsec := uuid.UUID(m.GetId()).Time().UnixTime()
			if d := time.Since(time.Unix(sec, nsec)) + off; d.Abs() > 5*time.Minute {
				return &usherv1.AuthReply{
					Status: usherv1.AuthReply_STATUS_CLOCK, WorkerUnixMs: time.Now().Add(off).UnixMilli(),
				}, nil
			}
			return edgetest.Allow(m), nil
		}
		res := b.ask(astraRequest("token=1"))
		wantStatus(t, "clock", res, http.StatusOK)
		wantAsked(t, "clock", b, 2)
		if decisionID(t, res) != uuid.UUID(b.workers.Asked()[1].GetId()) {
			t.Error("the answer carries the id that was not decided")
		}
		r := astraRequest("token=2")
		r.Header.Set("X-Session-ID", "1002")
		wantStatus(t, "the next one", b.ask(r), http.StatusOK)
		wantAsked(t, "the next one", b, 3)
	})
}

func TestFailModes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		uri             string
		known, stranger int
		reason          access.Reason // in the known one's row
	}{
		"deny":  {"/closed/a/i.m3u8?token=t", 403, 403, access.Unavailable},
		"allow": {"/free/a/i.m3u8?token=t", 200, 200, access.Uncounted},
		"grace": {"/hls/a/i.m3u8?token=t", 200, 403, access.Grace},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, func(t *testing.T, b *bench) {
				wantStatus(t, "opening", b.ask(segment(c.uri)), http.StatusOK)
				session := b.ask(segment(c.uri))
				wantStatus(t, "memory", session, http.StatusOK)
				b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
					return nil, bus.ErrNoWorker
				}
				time.Sleep(3 * time.Minute)
				begin := time.Now()
				res := b.ask(segment(c.uri))
				wantStatus(t, "known", res, c.known)
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("answer took %v, more than the budget", took)
				}
				b.report(t)
				rows := b.journal.Rows()
				if len(rows) != 1 || uuid.UUID(rows[0].GetId()) != decisionID(t, res) || rows[0].GetReason() != string(c.reason) {
					t.Fatalf("rows = %v, want one with reason %s under the answer's id", rows, c.reason)
				}
				asked := b.workers.Asked()
				if last := asked[len(asked)-1]; uuid.UUID(last.GetId()) != decisionID(t, res) {
					t.Error("the outcome does not stand under the question's own id")
				}
				wantStatus(t, "stranger", b.ask(nginxRequest("web1", c.uri, "198.51.100.1", "VLC")), c.stranger)
				if c.known == http.StatusOK {
					// The next segments don't wait for the budget.
					begin = time.Now()
					wantStatus(t, "segment", b.ask(segment(c.uri)), http.StatusOK)
					if time.Since(begin) != 0 {
						t.Error("a segment waited although the fail mode has just let the viewer go on")
					}
				}
			})
		})
	}
}

func TestGraceEnds(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return edgetest.Status(usherv1.AuthReply_STATUS_BUSY), nil
		}
		time.Sleep(defaultGrace - time.Minute)
		wantStatus(t, "in grace", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
		time.Sleep(2 * time.Minute)
		wantReason(t, "after grace", b.ask(segment("/hls/a/1.ts")), access.Overload)
		b.workers.Decide = nil
		time.Sleep(2 * time.Second)
		wantStatus(t, "workers are back", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
	})
}

func TestBeforeThePolicyArrives(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.view.Store(nil)
		b.viewed = make(chan struct{})
		begin := time.Now()
		wantReason(t, "no policy", b.ask(astraRequest("token=1")), access.Unavailable)
		if took := time.Since(begin); took > 800*time.Millisecond {
			t.Errorf("took %v, more than Astra's budget", took)
		}
		go func() {
			time.Sleep(200 * time.Millisecond)
			b.setPolicy(t, projection())
		}()
		wantStatus(t, "it arrives in time", b.ask(astraRequest("token=1")), http.StatusOK)
		synctest.Wait()
	})
}

func TestAPanicIsANo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) { panic("worker") }
	wantReason(t, "panic", b.ask(astraRequest("token=1")), access.Unavailable)
	b.workers.Decide = nil
	wantStatus(t, "after it", b.ask(astraRequest("token=1")), http.StatusOK)
}
