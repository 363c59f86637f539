// Package callertest holds what the tests of every adapter share: golden answers and the
// rules that no question, however hostile, may break. It is imported from tests only.
package callertest

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

// Update makes Golden write what it finds: go test ./internal/caller/... -update.
func Update() *bool { return flag.Bool("update", false, "write golden files anew") }

// decisions are what every adapter must be able to say.
func decisions() map[string]access.Decision {
	id := uuid.MustParse("01990000-0000-7000-8000-000000000001")
	return map[string]access.Decision{
		"allow":        {ID: id, Outcome: access.Allow, Reason: access.Granted, SessionName: "alice"},
		"allow_odd":    {ID: id, Outcome: access.Allow, Reason: access.Grace, SessionName: "al\r\nX-Evil: 1\x00ice\xff"},
		"deny":         {ID: id, Outcome: access.Deny, Reason: access.BadToken, SessionName: "alice"},
		"limit":        {ID: id, Outcome: access.Deny, Reason: access.Limit, Location: "https://tv.example.com/too-many"},
		"redirect":     {ID: id, Outcome: access.Redirect, Reason: access.Refused, Location: "http://pay.example.com/?a=b&c=d"},
		"bad_location": {ID: id, Outcome: access.Deny, Reason: access.Refused, Location: "https://x/\r\nSet-Cookie: a=b"},
		"unavailable":  {ID: id, Outcome: access.Deny, Reason: access.Unavailable},
		"unknown":      {ID: id, Outcome: access.Deny, Reason: access.Unavailable, Unknown: true},
		"full": {ID: id, Outcome: access.Allow, Reason: access.Granted, Realm: "main", User: "u42", MaxSessions: 2,
			Lease: 150*time.Second + 1},
		"other_realm": {ID: id, Outcome: access.Allow, Reason: access.Granted, Realm: "tv", User: "u42", Lease: time.Second},
		"odd_user":    {ID: id, Outcome: access.Allow, Reason: access.Granted, Realm: "main", User: "u\r\n42", Lease: time.Second},
	}
}

// Dialect is what an adapter may do that the others must not.
type Dialect struct {
	// Unknown is the status for a decision that is none, 0 where it is a denial like others.
	Unknown int
	// Body: a refusal has one.
	Body bool
}

// Golden compares the adapter's answers with testdata/<name>.golden, and holds what is
// true of all of them: never 5xx, never cached, and an allow only for an allow. may is what
// this dialect is excepted from.
func Golden(t *testing.T, name string, a caller.Adapter, n *caller.Node, update bool, may ...Dialect) {
	t.Helper()
	var out bytes.Buffer
	all := decisions()
	names := make([]string, 0, len(all))
	var special Dialect
	if len(may) > 0 {
		special = may[0]
	}
	for what := range all {
		names = append(names, what)
	}
	slices.Sort(names)
	for _, what := range names {
		d := all[what]
		w := httptest.NewRecorder()
		a.Answer(w, n, &d)
		res := w.Result()
		allowed, failed := res.StatusCode < 300, res.StatusCode >= 500
		if allowed != (d.Outcome == access.Allow) || failed != (d.Unknown && special.Unknown != 0) ||
			failed && res.StatusCode != special.Unknown {
			t.Errorf("%s: status %d for outcome %s", what, res.StatusCode, d.Outcome)
		}
		if res.Header.Get("Cache-Control") != "no-store" || w.Body.Len() != 0 && !special.Body {
			t.Errorf("%s: may be cached, or has a body", what)
		}
		fmt.Fprintf(&out, "# %s\n%d\n", what, res.StatusCode)
		writeHeader(&out, res.Header)
		if w.Body.Len() > 0 {
			fmt.Fprintf(&out, "%s\n\n", w.Body)
		}
	}
	file := filepath.Join("testdata", name+".golden")
	if update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s: answers differ (-update writes them anew), got\n%s\nwant\n%s", file, out.Bytes(), want)
	}
}

func writeHeader(out *bytes.Buffer, h http.Header) {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(out, "%s: %q\n", k, h[k])
	}
	out.WriteByte('\n')
}

// Node compiles a node with sensible values for what the view leaves out.
func Node(t testing.TB, v *usherv1.NodeView) *caller.Node {
	t.Helper()
	v = proto.CloneOf(v) // cases share theirs
	if len(v.GetFrom()) == 0 {
		v.From = []string{"10.0.0.0/8"}
	}
	n, err := caller.Compile(v, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Sound holds what is true of every question that an adapter accepts: all that goes on
// to a worker is UTF-8 without control characters and within its cap.
func Sound(t *testing.T, q *access.Request) {
	t.Helper()
	if q.Stream == "" || !q.IP.IsValid() || q.IP.Zone() != "" || q.IP.Is4In6() {
		t.Fatalf("accepted without stream or plain address: %q %v", q.Stream, q.IP)
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"stream", q.Stream, access.MaxName}, {"token", q.Token, access.MaxToken},
		{"query", q.Query, access.MaxQuery}, {"path", q.Path, access.MaxPath},
		{"host", q.Host, access.MaxHost}, {"user agent", q.UserAgent, access.MaxUserAgent},
		{"referer", q.Referer, access.MaxReferer}, {"device", q.Device, access.MaxName},
		{"channel", q.Channel, access.MaxName}, {"caller's session", q.CallerSession, access.MaxName},
	} {
		if len(f.value) > f.limit || !utf8.ValidString(f.value) {
			t.Fatalf("%s is not UTF-8 of at most %d bytes: %q", f.name, f.limit, f.value)
		}
		for i := range len(f.value) {
			if f.value[i] < 0x20 || f.value[i] == 0x7f {
				t.Fatalf("%s holds control characters: %q", f.name, f.value)
			}
		}
	}
}
