package edge

import (
	"context"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// aliased is an edge whose policy knows streams by other names.
func aliased(t *testing.T, b *bench, v *usherv1.AliasView) {
	t.Helper()
	p := projection()
	p.Revision, p.Aliases = 2, v
	b.setPolicy(t, p)
}

// away is what workers answer that are not there.
func away(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	return nil, edgetest.ErrAway
}

func TestAnAliasHasTheRuleOfItsStream(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		aliased(t, b, &usherv1.AliasView{Names: map[string]string{"gift": "free/gift", "shop/**": "closed/**"}, Strict: true})
		b.workers.Decide = away
		wantStatus(t, "tokenless and on_unavailable: allow", b.ask(segment("/gift/1.ts")), http.StatusOK)
		wantReason(t, "no token", b.ask(segment("/shop/a/1.ts")), access.NoSession)
		wantReason(t, "on_unavailable: deny", b.ask(segment("/shop/a/1.ts?token=1")), access.Unavailable)
		wantReason(t, "a hidden name is not let in by its rule", b.ask(segment("/free/gift/1.ts?token=1")), access.Unavailable)
		b.report(t)
		streams := map[string]bool{}
		for _, r := range b.journal.Rows() {
			streams[r.GetStream()] = true
		}
		if !streams["free/gift"] || !streams["closed/a"] || streams["gift"] || streams["shop/a"] {
			t.Errorf("rows name the streams %v, want their own names", streams)
		}
	})
}

func TestWhereAServiceKnowsTheNamesTheEdgeIsCautious(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		aliased(t, b, &usherv1.AliasView{Asked: true})
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			r := edgetest.Allow(m)
			r.Stream = "free/own"
			return r, nil
		}
		// No rule of the policy takes this name without a token; the stream's own might.
		wantStatus(t, "without a token", b.ask(segment("/secret/1.ts")), http.StatusOK)
		wantAsked(t, "without a token", b, 1)
		time.Sleep(4 * time.Minute)
		here := b.workers.Decide
		b.workers.Decide = away
		wantStatus(t, "a running session goes by its own stream's rule", b.ask(segment("/secret/1.ts")), http.StatusOK)
		wantReason(t, "a stranger by the most careful one", b.ask(segment("/other/1.ts")), access.Unavailable)
		b.workers.Decide = here
		time.Sleep(time.Minute)
		wantStatus(t, "again", b.ask(segment("/secret/1.ts")), http.StatusOK)
		asked := b.workers.Asked()
		if m := asked[len(asked)-1]; m.GetStream() != "secret" || m.GetKnownStream() != "free/own" || len(m.GetSessionId()) == 0 {
			t.Errorf("re-decision of %q, known as %q, session %x; want the name asked for, its stream, and the session", m.GetStream(), m.GetKnownStream(), m.GetSessionId())
		}
	})
}

func TestWhomTheEdgeRefusesItSendsWhereThePolicySays(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		p := projection()
		p.Revision = 2
		p.OnDeny = []*usherv1.DenyView{{Addresses: map[string]string{
			"no_session": "https://tv.example.com/login?s={stream}", "killed": "https://tv.example.com/{reason}/{decision}",
			"*": "https://tv.example.com/no?r={reason}",
		}}}
		for _, s := range p.GetStreams() {
			s.OnDeny = 1
		}
		b.setPolicy(t, p)
		sent := func(what string, res *http.Response, want string) {
			t.Helper()
			wantStatus(t, what, res, http.StatusForbidden)
			if got := res.Header.Get("X-Usher-Location"); got != want {
				t.Errorf("%s: sent to %q, want %q", what, got, want)
			}
		}
		sent("no session", b.ask(segment("/live/%2F%2Fevil.example/1.ts")), "https://tv.example.com/login?s=live%2Fevil.example")
		wantStatus(t, "opens", b.ask(segment("/live/a/1.ts?token=1")), http.StatusOK)
		m := b.workers.Asked()[0]
		session := b.table.get(access.Key(m.GetSessionKey())).grant.Load().session
		b.control(&usherv1.Control{
			Kind: "kill", SessionKey: m.GetSessionKey(), SessionId: session[:],
			BarMs: time.Minute.Milliseconds(), AtUnixMs: time.Now().UnixMilli(),
		})
		killed := b.ask(segment("/live/a/1.ts?token=1"))
		sent("killed", killed, "https://tv.example.com/killed/"+decisionID(t, killed).String())
		b.workers.Decide = away
		sent("nobody to ask", b.ask(segment("/closed/a/1.ts?token=1")), "https://tv.example.com/no?r=unavailable")
	})
}
