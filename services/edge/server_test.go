package edge

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

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
