package callertest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

// GoldenEvents reads every sample of testdata/events and compares what it is read as with
// testdata/events.golden.
func GoldenEvents(t *testing.T, a caller.Reporter, update bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "events", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples of events: %v", err)
	}
	slices.Sort(files)
	var out bytes.Buffer
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "# %s\n", filepath.Base(file))
		err = a.Events(Post(a, string(body)), Node(t, &usherv1.NodeView{}), func(e *caller.Event, ok bool) {
			writeEvent(&out, e, ok)
		})
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	golden := filepath.Join("testdata", "events.golden")
	if update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s: events are read otherwise (-update writes it anew), got\n%s\nwant\n%s", golden, out.Bytes(), want)
	}
}

// Post is a delivery of events.
func Post(a caller.Reporter, body string) *http.Request {
	return httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/"+a.Kind()+"/n1/"+caller.HookEvents, strings.NewReader(body))
}

func writeEvent(out *bytes.Buffer, e *caller.Event, ok bool) {
	kind := map[caller.EventKind]string{caller.Other: "other", caller.Opened: "opened", caller.Alive: "alive", caller.Ended: "ended"}[e.Kind]
	switch {
	case !ok:
		fmt.Fprintln(out, "not understood")
		return
	case e.Kind == caller.Other:
		fmt.Fprintln(out, kind)
		return
	}
	fmt.Fprintf(out, "%s %q stream %q", kind, e.Session, e.Stream)
	for _, f := range []struct{ name, value string }{
		{"token", e.Token}, {"user", e.User}, {"agent", e.UserAgent}, {"country", e.Country}, {"reason", e.Reason},
	} {
		if f.value != "" {
			fmt.Fprintf(out, " %s %q", f.name, f.value)
		}
	}
	if e.IP.IsValid() {
		fmt.Fprintf(out, " from %s", e.IP)
	}
	if !e.At.IsZero() {
		fmt.Fprintf(out, " at %s", e.At.UTC().Format(time.RFC3339Nano))
	}
	if !e.Opened.IsZero() && !e.At.IsZero() { // else it was counted from now
		fmt.Fprintf(out, " opened %s", e.Opened.UTC().Format(time.RFC3339Nano))
	}
	fmt.Fprintf(out, " %d bytes %s\n", e.Bytes, e.Playing)
}

// SeedEvents adds every sample of testdata/events, and what is no event at all.
func SeedEvents(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "events", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples of events: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	for _, text := range []string{"", " ", "[", "[]", "[{}", "{", "null", "1", "[[[]]]", "{}{}", "[{}]x", "{\"id\":\"\xff\"}", strings.Repeat("[", 20000)} {
		f.Add([]byte(text))
	}
}

// SoundEvents holds what is true of every event that is understood: it names a session, and all
// that goes on is clean and within its cap.
func SoundEvents(t *testing.T, a caller.Reporter, body []byte) {
	t.Helper()
	n := Node(t, &usherv1.NodeView{})
	_ = a.Events(Post(a, string(body)), n, func(e *caller.Event, ok bool) { // what follows a break is not read
		if !ok || e.Kind == caller.Other {
			return
		}
		if e.Session == "" || e.Bytes < 0 || e.Playing < 0 || e.IP.Zone() != "" || e.IP.Is4In6() {
			t.Fatalf("understood: %+v", e)
		}
		for _, c := range []struct {
			text  string
			limit int
		}{
			{e.Session, access.MaxName}, {e.Stream, access.MaxName}, {e.User, access.MaxName}, {e.Token, access.MaxToken},
			{e.UserAgent, access.MaxUserAgent}, {e.Country, 2}, {e.Reason, 64},
		} {
			if len(c.text) > c.limit || !utf8.ValidString(c.text) || strings.ContainsFunc(c.text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("%q is not clean text of at most %d bytes", c.text, c.limit)
			}
		}
	})
}
