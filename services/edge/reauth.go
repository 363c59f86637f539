package edge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/control"
)

// reauthEvery is the longest wait between two streams; many are spread over one lease.
const reauthEvery = time.Second

// again are streams of one node about whose viewers it is to ask anew, with their sessions.
type again struct {
	mu   sync.Mutex // guards by
	by   map[string][]*session
	wake chan struct{}
}

func newAgain() *again { return &again{by: make(map[string][]*session), wake: make(chan struct{}, 1)} }

func (t *again) add(by map[string][]*session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for stream, list := range by {
		t.by[stream] = list // the newest revision's view of who plays it
	}
	nudge(t.wake)
}

func (t *again) take() map[string][]*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	by := t.by
	t.by = make(map[string][]*session)
	return by
}

// rejudge has the nodes that can be told ask anew about sessions whose rule judges differently in the new
// revision. All others ask by themselves when their lease is over.
func (s *Service) rejudge(old, v *view) {
	changed := map[string]bool{} // streams
	by := map[*poller]map[string][]*session{}
	s.table.each(func(ses *session) {
		if ses.caller() == "" || ses.zapped.Load() != 0 {
			return
		}
		p := s.pollers.of(ses.node.Value())
		if p == nil {
			return
		}
		if _, ok := p.server.(control.Reauther); !ok {
			return
		}
		stream := ses.stream.Value()
		differs, ok := changed[stream]
		if !ok {
			_, before := old.find(stream)
			_, now := v.find(stream)
			differs = before.digest != 0 && now.digest != 0 && before.digest != now.digest
			changed[stream] = differs
		}
		if !differs {
			return
		}
		if by[p] == nil {
			by[p] = map[string][]*session{}
		}
		by[p][stream] = append(by[p][stream], ses)
	})
	for p, streams := range by {
		p.again.add(streams)
	}
}

// reauth has the node ask anew, stream by stream, until ctx ends.
func (p *poller) reauth(ctx context.Context, server control.Reauther) {
	for {
		select {
		case <-p.again.wake:
		case <-ctx.Done():
			return
		}
		by := p.again.take()
		n := p.node.Load()
		every := min(n.Lease/time.Duration(len(by)+1), reauthEvery)
		for stream, list := range by {
			for _, ses := range list {
				ses.expire(p.s.now())
			}
			result := "sent"
			// A stream that nobody has there any more has no viewers to ask about.
			if err := server.Reauth(ctx, stream); err != nil && !errors.Is(err, control.ErrGone) {
				result = "failed" // they are asked about when their lease is over
				p.s.log.DebugContext(ctx, "a node was not told to ask anew", slog.String(telemetry.Node, n.Name), slog.Any(telemetry.Error, err))
			}
			p.s.metrics.reauths.WithLabelValues(n.Caller, result).Inc()
			select {
			case <-time.After(every):
			case <-ctx.Done():
				return
			}
		}
	}
}

// expire ends the session's lease, so that the next question about it goes to a worker.
func (s *session) expire(now instant) {
	for {
		g := s.grant.Load()
		if g.until <= now {
			return
		}
		over := *g
		over.until = now
		if s.grant.CompareAndSwap(g, &over) {
			return
		}
	}
}
