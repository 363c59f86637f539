package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// flussonicSession is what fl1 says of one session; change adds to it or replaces in it.
func flussonicSession(change string) *http.Request {
	q := url.Values{
		"name": {"bbc"}, "proto": {"hls"}, "ip": {"203.0.113.7"}, "token": {"T1"}, "request_type": {"new_session"},
		"session_id": {"6217fd62-16da-4206-9da9-0173d7552a14"}, "user_agent": {"MAG"},
	}
	more, err := url.ParseQuery(change)
	if err != nil {
		panic(err) // a mistake of the test
	}
	for name, values := range more {
		q[name] = values
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/flussonic/fl1?"+q.Encode(), nil)
	r.RemoteAddr = "10.3.0.1:4000"
	return r
}

// first is a header in the spelling that it was written in.
func first(res *http.Response, name string) string {
	if len(res.Header[name]) == 0 {
		return ""
	}
	return res.Header[name][0]
}

const updateSession = "request_type=update_session"

// TestFlussonicLife follows one session: what X-AuthDuration says is what the edge does.
func TestFlussonicLife(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		res := b.ask(flussonicSession(""))
		wantStatus(t, "NEW", res, http.StatusOK)
		if user := first(res, "X-UserId"); user != "alice" {
			t.Errorf("X-UserId = %q, want alice", user)
		}
		again, err := time.ParseDuration(first(res, "X-AuthDuration") + "s")
		if err != nil || again < 144*time.Second || again > 180*time.Second {
			t.Fatalf("X-AuthDuration = %q, want the lease of 180 s less its jitter", first(res, "X-AuthDuration"))
		}
		time.Sleep(again / 2)
		res = b.ask(flussonicSession(updateSession))
		wantStatus(t, "UPD inside the lease", res, http.StatusOK)
		wantAsked(t, "UPD inside the lease", b, 1)
		if left, _ := time.ParseDuration(first(res, "X-AuthDuration") + "s"); left < again/2-time.Second || left > again/2+time.Second {
			t.Errorf("X-AuthDuration = %s inside the lease, want what is left of it, %s", left, again/2)
		}
		time.Sleep(again/2 + time.Second)
		wantStatus(t, "UPD after it, from another address", b.ask(flussonicSession(updateSession+"&ip=198.51.100.9")), http.StatusOK)
		wantAsked(t, "UPD after it", b, 2)
		asked := b.workers.Asked()[1]
		if len(asked.GetSessionId()) == 0 || !asked.GetUpdate() || asked.GetIp() != "198.51.100.9" || asked.GetDevice() != "203.0.113.7 MAG" {
			t.Errorf("the running session is asked for as %v, want its id, the new address and its own device", asked)
		}
	})
}

// TestFlussonicSilence: nothing comes between two re-checks, and the seat lives through it.
func TestFlussonicSilence(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		wantStatus(t, "NEW", b.ask(flussonicSession("")), http.StatusOK)
		w := &sweeper{s: b.Service}
		for range 200 {
			time.Sleep(time.Second)
			w.round(t.Context(), b.now(), false)
		}
		if n := b.table.count.Load(); n != 1 {
			t.Fatalf("%d sessions after 200 s of a 180 s lease, want it to live for idle after the lease", n)
		}
		for range 60 {
			time.Sleep(time.Second)
			w.round(t.Context(), b.now(), false)
		}
		signs := b.workers.Signs()
		if n := b.table.count.Load(); n != 0 || len(signs) == 0 || !signs[len(signs)-1].GetClose() {
			t.Errorf("%d sessions after lease and idle, %d signs; want none, and a close", n, len(signs))
		}
	})
}

// TestFlussonicNobodyCanTell: exactly 500 where nobody can tell, a yes for who is known.
func TestFlussonicNobodyCanTell(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		wantStatus(t, "NEW", b.ask(flussonicSession("")), http.StatusOK)
		time.Sleep(200 * time.Second)
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return nil, edgetest.ErrAway
		}
		wantStatus(t, "the running session", b.ask(flussonicSession(updateSession)), http.StatusOK)
		wantStatus(t, "a stranger", b.ask(flussonicSession("session_id=other")), http.StatusInternalServerError)
		wantReason(t, "a stranger where the mode denies", b.ask(flussonicSession("session_id=third&name=closed/x")), "unavailable")
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			reply := edgetest.Deny(m, "unavailable")
			reply.Unknown = true
			return reply, nil
		}
		wantStatus(t, "a worker that cannot tell", b.ask(flussonicSession("session_id=fourth")), http.StatusInternalServerError)
	})
}

// TestFlussonicReusedID: the same id for another stream or token is another viewer.
func TestFlussonicReusedID(t *testing.T) {
	t.Parallel()
	for _, change := range []string{"name=cnn", "token=T2"} {
		b := setup(t)
		wantStatus(t, "NEW", b.ask(flussonicSession("")), http.StatusOK)
		wantStatus(t, change, b.ask(flussonicSession(updateSession+"&"+change)), http.StatusOK)
		asked := b.workers.Asked()
		if len(asked) != 2 || len(asked[1].GetSessionId()) != 0 || len(asked[1].GetReplaces()) == 0 {
			t.Errorf("%s under a known id is asked as %v, want a new session that replaces the old one", change, asked[len(asked)-1])
		}
	}
}

// TestFlussonicPublishes: a body is read, and what hangs in it costs the budget alone.
func TestFlussonicPublishes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := httptest.NewRequest(http.MethodPost, "/v1/flussonic/fl1", strings.NewReader(
		`{"name":"cam/1","ip":"203.0.113.7","session_id":"s1","request_type":"new_session","token":"T1","host":{}}`))
	r.RemoteAddr = "10.3.0.1:4000"
	b.ask(r)
	asked := b.workers.Asked()
	if len(asked) != 1 || asked[0].GetAction() != "publish" || asked[0].GetStream() != "cam/1" {
		t.Errorf("workers were asked %v, want one question about publishing cam/1", asked)
	}
}
