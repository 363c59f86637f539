package edge

import (
	"fmt"
	"net/http"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

// ParseQuestion reads a question exactly as an edge would that serves the node: for
// `usher explain`. r is the caller's request to the edge; an empty RemoteAddr stands for
// an address that the node may ask from. The result has no ID, region or edge. An
// error says, without any secret, what the edge would refuse the question for.
func ParseQuestion(node *usherv1.NodeView, r *http.Request, keyer *access.Keyer) (*access.Request, error) {
	a := adapters()[node.GetCaller()]
	if a == nil {
		return nil, fmt.Errorf("caller %q is not known", node.GetCaller())
	}
	n, err := caller.Compile(node, a.Budget())
	if err != nil {
		return nil, err
	}
	peer := peerOf(r.RemoteAddr)
	if r.RemoteAddr == "" && len(n.From) > 0 {
		peer = n.From[0].Addr()
	}
	if !n.Admits(peer) {
		return nil, fmt.Errorf("%s may not ask for node %q: %s", peer, n.Name, access.WrongSource.Text())
	}
	q := &question{node: n}
	q.Node, q.Caller, q.Received = n.Name, a.Kind(), time.Now()
	if err := a.Parse(r, n, peer, &q.Request); err != nil {
		return nil, err
	}
	q.prefix = prefixOf(q.IP)
	q.Key = key(keyer, q)
	q.Device = q.device()
	return &q.Request, nil
}
