package condition

import (
	"errors"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Expr is a compiled expression, immutable and safe for concurrent use.
type Expr struct {
	text               string
	program            cel.Program
	user, place, token bool
	keys               [][]key
}

// ErrFailed means that an expression gave no answer: it took too long, or divided by zero.
var ErrFailed = errors.New("the expression failed")

// Holds says whether the expression is true of the facts. The error wraps ErrFailed and tells
// nothing of the facts.
func (e *Expr) Holds(f *Facts) (bool, error) {
	out, _, err := e.program.Eval(f)
	if err != nil {
		return false, ErrFailed
	}
	return out == types.True, nil
}

// ReadsUser says whether it looks at user, realm or sessions, which are known after the checks.
func (e *Expr) ReadsUser() bool { return e.user }

// ReadsPlace says whether it looks at country, asn or org, which a database tells.
func (e *Expr) ReadsPlace() bool { return e.place }

// NeedsToken says that it never holds for a viewer without a token.
func (e *Expr) NeedsToken() bool { return e.token }

// String is the expression as it was written.
func (e *Expr) String() string { return e.text }
