package decide

import (
	"context"
	"fmt"
	"strings"

	"usher.internal/libs/policy"
	"usher.internal/libs/token"
)

// Schemes are the types of checks whose tokens can be made and taken apart.
func Schemes() []string {
	types := make([]string, len(schemes))
	for i, s := range schemes {
		types[i] = s.Type
	}
	return types
}

// Sign makes a token that the check accepts, with the check's own options and secret.
func Sign(c *policy.Check, t token.Ticket) (token.Signed, error) {
	for _, s := range schemes {
		if s.Type == c.Type {
			return s.sign(c.Options, t)
		}
	}
	return token.Signed{}, fmt.Errorf("check %s is of type %s, whose tokens are not made here; %s are", c.Name, c.Type, strings.Join(Schemes(), ", "))
}

// Inspected is a token taken apart.
type Inspected struct {
	Type  string
	Parts []token.Part
}

// Inspect says which schemes a token, or the address that carries it, has the form of, and what
// stands in it. Nothing is judged. checks, if any are given, say where their links stand.
func Inspect(checks []*policy.Check, tok, address string) []Inspected {
	var all []Inspected
	for _, s := range schemes {
		parts, ok := s.inspect(nil, tok, address)
		for _, c := range checks {
			if !ok && c.Type == s.Type {
				parts, ok = s.inspect(c.Options, tok, address)
			}
		}
		if ok {
			all = append(all, Inspected{s.Type, parts})
		}
	}
	return all
}

// Verify asks one verifier of the policy, outside of any rule. The error is what the verifier
// says, or that there is none of this name.
func (e *Engine) Verify(ctx context.Context, name string, q *token.Question) (token.Identity, error) {
	c := e.checks[name]
	if c == nil || c.verifier == nil {
		return token.Identity{}, fmt.Errorf("the policy has no verifier called %q", name)
	}
	return c.verifier.Verify(ctx, q)
}
