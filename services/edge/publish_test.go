package edge

import (
	"context"
	"net/http"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// publishing is the question of somebody who sends the stream, as fl1 puts it.
func publishing(change string) *http.Request {
	r := flussonicSession(change)
	r.URL.Path += "/publish"
	return r
}

// TestToWatchIsNotToPublish has viewers' sessions and fail modes refuse publishers with the same token.
func TestToWatchIsNotToPublish(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			if m.GetAction() == string(access.Publish) {
				return edgetest.Deny(m, string(access.NoRule)), nil
			}
			return edgetest.Allow(m), nil
		}
		for _, id := range []string{"", "session_id="} { // the same session, and callers without one
			wantStatus(t, "a viewer "+id, b.ask(flussonicSession(id)), http.StatusOK)
			wantReason(t, "a publisher "+id, b.ask(publishing(id)), access.NoRule)
			wantStatus(t, "the viewer again "+id, b.ask(flussonicSession(id)), http.StatusOK)
		}
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return nil, edgetest.ErrAway
		}
		const free = "name=free/x&session_id=7017fd62-16da-4206-9da9-0173d7552a14"
		wantReason(t, "a publisher where everybody may watch", b.ask(publishing(free)), access.Unavailable)
		wantStatus(t, "a viewer there", b.ask(flussonicSession(free)), http.StatusOK)
	})
}
