package flussonic

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/caller/callertest"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	callertest.GoldenEvents(t, Adapter{}, *update)
}

func FuzzEvents(f *testing.F) {
	callertest.SeedEvents(f)
	f.Fuzz(func(t *testing.T, body []byte) { callertest.SoundEvents(t, Adapter{}, body) })
}

// TestTheREADMEsEventSink: what an operator copies is heard, and names no event that means nothing.
func TestTheREADMEsEventSink(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, ok := strings.Cut(string(readme), "event_sink usher {\n")
	if !ok {
		t.Fatal("no event_sink in the README")
	}
	snippet, _, _ = strings.Cut(snippet, "}")
	for line := range strings.Lines(snippet) {
		option, value, _ := strings.Cut(strings.TrimRight(strings.TrimSpace(line), ";"), " ")
		switch option {
		case "url":
			if r := httptest.NewRequest(http.MethodPost, value, nil); !(Adapter{}).Hears(r) {
				t.Errorf("%s brings no events", value)
			}
		case "only":
			for name := range strings.SplitSeq(strings.TrimPrefix(value, "event="), ",") {
				if kindOf(name, "publish") == caller.Other {
					t.Errorf("event %q means nothing", name)
				}
			}
		}
	}
}
