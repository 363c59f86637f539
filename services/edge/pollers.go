package edge

import (
	"context"
	"log/slog"
	"sync"

	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/caller"
	"usher.internal/services/edge/internal/control"
)

// pollers are the nodes whose control API this edge may ask, each with a goroutine of its own.
type pollers struct {
	mu     sync.RWMutex // guards byNode
	byNode map[string]*poller
	wake   chan struct{}
}

func newPollers() *pollers {
	return &pollers{byNode: make(map[string]*poller), wake: make(chan struct{}, 1)}
}

// changed says that the policy has changed.
func (ps *pollers) changed() { nudge(ps.wake) }

// of finds a node's poller, nil if it has none.
func (ps *pollers) of(node string) *poller {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.byNode[node]
}

// poll keeps a poller for every node with a control API until ctx ends.
func (s *Service) poll(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		select {
		case <-s.pollers.wake:
		case <-ctx.Done():
			return nil
		}
		v := s.view.Load()
		if v == nil {
			continue
		}
		s.retire(v, stops)
		for name, n := range v.nodes {
			if n.Control == nil {
				continue
			}
			if p := s.pollers.of(name); p != nil {
				p.node.Store(n)
				continue
			}
			p, err := s.newPoller(n)
			if err != nil {
				s.log.WarnContext(ctx, "control API cannot be used", slog.String(telemetry.Node, name), slog.Any(telemetry.Error, err))
				continue
			}
			own, stop := context.WithCancel(ctx)
			stops[name] = stop
			s.pollers.mu.Lock()
			s.pollers.byNode[name] = p
			s.pollers.mu.Unlock()
			running.Go(func() { p.run(own) })
		}
	}
}

// retire stops the pollers whose nodes have no control API any more, or another one.
func (s *Service) retire(v *view, stops map[string]context.CancelFunc) {
	s.pollers.mu.Lock()
	defer s.pollers.mu.Unlock()
	for name, p := range s.pollers.byNode {
		if n := v.nodes[name]; n == nil || n.Control == nil || *n.Control != p.conf || n.Caller != p.node.Load().Caller {
			delete(s.pollers.byNode, name)
			stops[name]()
			delete(stops, name)
		}
	}
}

func (s *Service) newPoller(n *caller.Node) (*poller, error) {
	kind, ok := controlOf(n.Caller)
	if !ok {
		return nil, errNoControl
	}
	c := *n.Control
	client, err := control.NewClient(control.Config{URL: c.URL, User: c.User, Password: c.Password, Timeout: c.Timeout})
	if err != nil {
		return nil, err
	}
	p := &poller{
		s: s, conf: c, client: client, server: kind.New(client), wake: make(chan struct{}, 1),
		strays: newStrays(), kicks: newKicks(), again: newAgain(),
	}
	p.node.Store(n)
	return p, nil
}

// nudge wakes whoever waits for c, or comes to wait for it.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake already
	}
}
