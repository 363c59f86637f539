package edge

import (
	"context"
	"log/slog"
	"time"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// compareEvery is how often all seats of a node are compared with its lists.
	compareEvery = 10 * time.Minute
	// maxCompared bounds the sessions of a node that go into one message.
	maxCompared = 40_000
)

// compare has a worker give back the seats of the node that two lists in a row do not show: those of
// viewers who left while this edge was away, or whom another one opened that is gone. What this edge
// knows itself it has ended already.
func (p *poller) compare(ctx context.Context, r *reading) {
	before := p.shown
	p.shown = r.shown
	if r.shown == nil || before == nil || p.before == 0 || !p.proven {
		return
	}
	for k := range before {
		r.shown[k] = struct{}{}
	}
	p.shown = nil
	s := p.s
	if len(r.shown) > maxCompared {
		p.compared = r.begin
		return
	}
	now := s.now()
	list := &usherv1.NodeList{
		Node: r.node.Name, Keys: make([][]byte, 0, len(r.shown)),
		// Who only just asked may be on neither of them.
		AgeMs: (now.since(p.before) + settling).Milliseconds(),
	}
	for k := range r.shown {
		list.Keys = append(list.Keys, append([]byte(nil), k[:]...))
	}
	ctx, cancel := context.WithTimeout(ctx, seatsTimeout)
	defer cancel()
	reply, err := s.putSeats(ctx, &usherv1.SeatsRequest{Region: s.cfg.Region, Edge: s.cfg.Name, List: list})
	if err != nil {
		return // with the next lists
	}
	if n := reply.GetAbsent(); n > 0 {
		s.log.InfoContext(ctx, "seats of a node were given back that its lists do not show",
			slog.String(telemetry.Node, r.node.Name), slog.Int(telemetry.Count, int(n)))
		return // there may be more
	}
	p.compared = r.begin
}
