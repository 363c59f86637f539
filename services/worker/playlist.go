package worker

import (
	"context"
	"log/slog"
	"net/netip"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// playlistPool writes playlists: few at a time, so that they never take what questions need.
const playlistPool, playlistQueue = 2, 16

// lists writes own subscribers' playlists for edges.
type lists struct {
	policies *policies
	log      *slog.Logger
}

// write is the bus.PlaylistHandler.
func (l *lists) write(ctx context.Context, edge string, m *usherv1.PlaylistRequest) *usherv1.PlaylistReply {
	j := l.policies.judge()
	if j == nil {
		return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_INTERNAL}
	}
	defer j.release()
	ip, err := netip.ParseAddr(m.GetIp())
	if err != nil {
		ip = netip.Addr{} // whoever may watch from some networks only gets none
	}
	p, err := j.engine.Playlist(ctx, m.GetCheck(), m.GetToken(), ip.Unmap().WithZone(""))
	if err != nil {
		l.log.DebugContext(ctx, "playlist could not be written", slog.String(telemetry.Edge, edge), slog.Any(telemetry.Error, err))
		return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_INTERNAL}
	}
	return &usherv1.PlaylistReply{
		Status: usherv1.AuthReply_STATUS_DECIDED, Reason: string(p.Reason), Text: p.Text, Name: p.Name, Body: p.Body,
	}
}

// servePlaylists waits for the policy, as serveAuth does.
func (s *Service) servePlaylists(ctx context.Context) error {
	select {
	case <-s.policies.ready:
	case <-ctx.Done():
		return nil
	}
	l := &lists{policies: s.policies, log: s.log}
	return s.deps.Bus.ServePlaylists(ctx, s.cfg.Region, playlistPool, playlistQueue, l.write)
}
