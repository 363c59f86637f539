package edge

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// TestABadLinkSpeaksForNoOther: where a link is signed in its path, the next one of the same viewer is
// asked about, also within the second for which a denial is remembered.
func TestABadLinkSpeaksForNoOther(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			if strings.HasSuffix(m.GetPath(), "/bad.m3u8") {
				return edgetest.Deny(m, "bad_token"), nil
			}
			return edgetest.Allow(m), nil
		}
		wantReason(t, "a bad link", b.ask(segment("/free/a/bad.m3u8")), "bad_token")
		wantReason(t, "again", b.ask(segment("/free/a/bad.m3u8")), "bad_token")
		wantAsked(t, "a bad link twice", b, 1)
		wantStatus(t, "a good link", b.ask(segment("/free/a/good.m3u8")), http.StatusOK)
	})
}
