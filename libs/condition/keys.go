package condition

import (
	"net/netip"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"usher.internal/libs/config"
)

// keyKind is how a key compares.
type keyKind uint8

const (
	equals   keyKind = iota // the variable is this text
	begins                  // the variable begins with this text
	inPrefix                // the address is in this network
	inNamed                 // the address is in the list of this name
)

// key is a fact that must be so for an expression to hold, and that an Index finds without
// asking the expression.
type key struct {
	kind   keyKind
	slot   slot
	text   string
	prefix netip.Prefix
}

// maxKeys bounds the keys of one expression: `stream in [...]` may be long.
const maxKeys = 1000

// keysOf finds what an expression can be filed under: each of the sets is such that the
// expression is false, and not an error, where none of its keys is so.
func keysOf(a *ast.AST, l *Language) [][]key { return finder{a, l}.keys(a.Expr()) }

type finder struct {
	ast      *ast.AST
	language *Language
}

func (f finder) keys(e ast.Expr) [][]key {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	switch call.FunctionName() {
	case operators.LogicalAnd:
		// One false side makes it false, even if the other fails.
		var all [][]key
		for _, arg := range call.Args() {
			all = append(all, f.keys(arg)...)
		}
		return all
	case operators.LogicalOr:
		return f.either(call.Args())
	case operators.Equals:
		return single(f.equal(call.Args()[0], call.Args()[1]), f.equal(call.Args()[1], call.Args()[0]))
	case operators.In:
		return single(f.member(call.Args()[0], call.Args()[1]))
	case "startsWith":
		if s, ok := f.variable(call.Target()); ok {
			if text, ok := constant(call.Args()[0]); ok && text != "" {
				return [][]key{{{kind: begins, slot: s, text: text}}}
			}
		}
	}
	return nil
}

func single(sets ...[]key) [][]key {
	for _, set := range sets {
		if set != nil {
			return [][]key{set}
		}
	}
	return nil
}

// either takes the first set of each side together: where neither holds, all sides are false.
func (f finder) either(sides []ast.Expr) [][]key {
	var union []key
	for _, side := range sides {
		sets := f.keys(side)
		if len(sets) == 0 {
			return nil
		}
		union = append(union, sets[0]...)
	}
	if len(union) > maxKeys {
		return nil
	}
	return [][]key{union}
}

// variable is the slot of a variable whose value is a text or a number.
func (f finder) variable(e ast.Expr) (slot, bool) {
	if e.Kind() != ast.IdentKind {
		return 0, false
	}
	s, ok := slots[e.AsIdent()]
	if !ok || s == slotIP || s == slotTime || s == slotHasToken || s == slotSessions {
		return 0, false
	}
	// Within a macro another variable may bear the name.
	r := f.ast.ReferenceMap()[e.ID()]
	return s, r != nil && r.Name == variables[s].name
}

func (f finder) equal(left, right ast.Expr) []key {
	s, ok := f.variable(left)
	if !ok || right.Kind() != ast.LiteralKind {
		return nil
	}
	switch v := right.AsLiteral().(type) {
	case types.String:
		return []key{{kind: equals, slot: s, text: string(v)}}
	case types.Int:
		return []key{{kind: equals, slot: s, text: strconv.FormatInt(int64(v), 10)}}
	}
	return nil
}

// member is `country in ["DE", "AT"]`, `ip in networks.office` and `ip in network("10/8")`.
func (f finder) member(left, right ast.Expr) []key {
	if right.Kind() == ast.ListKind {
		elements := right.AsList().Elements()
		if len(elements) == 0 || len(elements) > maxKeys {
			return nil
		}
		var out []key
		for _, element := range elements {
			k := f.equal(left, element)
			if k == nil {
				return nil
			}
			out = append(out, k...)
		}
		return out
	}
	if left.Kind() != ast.IdentKind || left.AsIdent() != variables[slotIP].name {
		return nil
	}
	if r := f.ast.ReferenceMap()[right.ID()]; r != nil && strings.HasPrefix(r.Name, networksPrefix) {
		return []key{{kind: inNamed, text: r.Name[len(networksPrefix):]}}
	}
	if right.Kind() == ast.CallKind && right.AsCall().FunctionName() == inFunction {
		if text, ok := constant(right.AsCall().Args()[0]); ok {
			if p, err := config.ParsePrefix(text); err == nil {
				return []key{{kind: inPrefix, prefix: p}}
			}
		}
	}
	return nil
}

// needsToken says that has_token is one of the things that must hold.
func needsToken(e ast.Expr) bool {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent() == variables[slotHasToken].name
	case ast.CallKind:
		if call := e.AsCall(); call.FunctionName() == operators.LogicalAnd {
			for _, arg := range call.Args() {
				if needsToken(arg) {
					return true
				}
			}
		}
	}
	return false
}
