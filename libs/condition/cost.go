package condition

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
)

const (
	// MaxCost is the most that an expression may cost, in CEL's units (one is a few
	// nanoseconds, or ten characters of a text): when it is read, for the longest texts that
	// there can be, and again when it runs.
	MaxCost = 20_000
	// freeCost is a bound that needs no watch while the expression runs: counting would cost
	// more than the expression.
	freeCost = 2_000
)

// bound is the most that the expression can cost; a problem if that is too much.
func (l *Language) bound(checked *cel.Ast) (uint64, *Problem) {
	estimate, err := l.env.EstimateCost(checked, sizes{})
	if err != nil {
		return 0, &Problem{Line: 1, Column: 1, Message: "its cost cannot be told: " + err.Error()}
	}
	if estimate.Max > MaxCost {
		return 0, &Problem{Line: 1, Column: 1, Message: fmt.Sprintf("may cost up to %d, at most %d is allowed: look at less, or at shorter texts", estimate.Max, MaxCost)}
	}
	return estimate.Max, nil
}

// sizes tell how long the variables are at most.
type sizes struct{}

// EstimateSize implements cost.Estimator.
func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) != 1 {
		return nil
	}
	s, ok := slots[path[0]]
	if !ok {
		return nil
	}
	size := cost.RangedSizeEstimate(0, variables[s].size)
	return &size
}

// EstimateCallCost implements cost.Estimator.
func (sizes) EstimateCallCost(function, _ string, target *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	switch function {
	case lowerFunction:
		if target == nil {
			return nil
		}
		size := cost.EstimateSize(sizes{}, *target)
		return cost.NewCallEstimate(size.MultiplyByCostFactor(0.1).Add(cost.FixedCostEstimate(1)), &size)
	case weekdayFunction:
		size := cost.FixedSizeEstimate(3)
		return cost.NewCallEstimate(cost.FixedCostEstimate(5), &size)
	case hourFunction, inFunction:
		return cost.NewCallEstimate(cost.FixedCostEstimate(5), nil)
	}
	return nil
}
