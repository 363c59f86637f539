package policyfile

import (
	"context"
	"fmt"
	"net/http"

	"usher.internal/libs/decide"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge"
)

// Judge says what the policy would answer to a question of the node, read as an edge
// reads it. No seat is taken and nothing is written; middlewares are really asked. The
// error says why the edge itself would refuse the question.
func Judge(ctx context.Context, p *Policy, n *policy.Node, r *http.Request) (decide.Verdict, error) {
	view := nodeView(p.Snapshot, n)
	if view == nil {
		return decide.Verdict{}, fmt.Errorf("the policy has no node %q", n.Name)
	}
	req, err := edge.ParseQuestion(view, r, p.keyer)
	if err != nil {
		return decide.Verdict{}, err
	}
	return p.Engine.Decide(ctx, req), nil
}

// nodeView is the node as its edge reads it.
func nodeView(s *policy.Snapshot, n *policy.Node) *usherv1.NodeView {
	for _, projection := range s.Projections() {
		for _, view := range projection.GetNodes() {
			if view.GetName() == n.Name {
				return view
			}
		}
	}
	return nil
}
