package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

// lister is an engine that has playlists.
type lister struct {
	fakeEngine
	asked netip.Addr
}

func (e *lister) Playlist(_ context.Context, check, token string, ip netip.Addr) (decide.Playlist, error) {
	e.asked = ip
	switch token {
	case "away":
		return decide.Playlist{}, errors.New("away")
	case "bad":
		return decide.Playlist{Reason: access.BadToken, Text: "nobody's"}, nil
	}
	return decide.Playlist{Name: check, Body: []byte("#EXTM3U\n")}, nil
}

func TestPlaylists(t *testing.T) {
	t.Parallel()
	l := &lists{policies: newPolicies(nil, nil, slog.New(slog.DiscardHandler), nil), log: slog.New(slog.DiscardHandler)}
	write := func(token, ip string) *usherv1.PlaylistReply {
		return l.write(t.Context(), "e1", &usherv1.PlaylistRequest{Check: "own", Token: token, Ip: ip})
	}
	if r := write("x", ""); r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL {
		t.Errorf("without a policy: %v", r)
	}
	e := new(lister)
	l.policies.current.Store(newJudge(new(policy.Snapshot), e, &l.policies.closing))
	if r := write("x", "::ffff:192.0.2.1"); r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED || r.GetName() != "own" || string(r.GetBody()) != "#EXTM3U\n" ||
		e.asked != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("a playlist: %v, asked for %v", r, e.asked)
	}
	if r := write("bad", "nonsense"); r.GetReason() != "bad_token" || len(r.GetBody()) > 0 || e.asked.IsValid() {
		t.Errorf("a refusal: %v, asked for %v", r, e.asked)
	}
	if r := write("away", ""); r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL || r.GetReason() != "" {
		t.Errorf("while the store is away: %v", r)
	}
}
