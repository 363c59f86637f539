package condition

import (
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"usher.internal/libs/config"
)

// Problem is what is wrong with an expression.
type Problem struct {
	// Line and Column within the expression, from 1.
	Line, Column int
	Message      string
	Suggestion   string // the name that was probably meant, "" if none is near
}

// maxProblems bounds those of one expression.
const maxProblems = 5

// Compile reads an expression, checks its types and bounds its cost. With problems there is
// no Expr. Equal texts are one Expr.
func (l *Language) Compile(text string) (*Expr, []Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.known[text]
	if !ok {
		c.expr, c.problems = l.compile(text)
		l.known[text] = c
	}
	return c.expr, c.problems
}

func (l *Language) compile(text string) (*Expr, []Problem) {
	if strings.TrimSpace(text) == "" {
		return nil, []Problem{{Line: 1, Column: 1, Message: "is empty; want an expression such as country == \"DE\""}}
	}
	if len(text) > MaxText {
		return nil, []Problem{{Line: 1, Column: 1, Message: fmt.Sprintf("has %d bytes, at most %d are allowed", len(text), MaxText)}}
	}
	checked, issues := l.env.Compile(text)
	if issues.Err() != nil {
		return nil, l.problems(issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, []Problem{{Line: 1, Column: 1, Message: fmt.Sprintf("gives %s; want true or false", checked.OutputType())}}
	}
	native := checked.NativeRep()
	if problems := l.constants(native); len(problems) > 0 {
		return nil, problems
	}
	cost, problem := l.bound(checked)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	return l.plan(text, checked, cost)
}

func (l *Language) plan(text string, checked *cel.Ast, cost uint64) (*Expr, []Problem) {
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if cost > freeCost {
		options = append(options, cel.CostLimit(MaxCost))
	}
	program, err := l.env.Program(checked, options...)
	if err != nil {
		return nil, []Problem{{Line: 1, Column: 1, Message: err.Error()}}
	}
	native := checked.NativeRep()
	e := &Expr{text: text, program: program, keys: keysOf(native, l)}
	for _, r := range native.ReferenceMap() {
		s, ok := slots[r.Name]
		if !ok {
			continue
		}
		e.user = e.user || s == slotUser || s == slotRealm || s == slotSessions
		e.place = e.place || s == slotCountry || s == slotASN || s == slotOrg
	}
	e.token = needsToken(native.Expr())
	return e, nil
}

var undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)

// problems tells CEL's own messages, with the name that was probably meant.
func (l *Language) problems(issues *cel.Issues) []Problem {
	var out []Problem
	for _, e := range issues.Errors() {
		if len(out) == maxProblems {
			break
		}
		p := Problem{Line: max(e.Location.Line(), 1), Column: max(e.Location.Column()+1, 1), Message: firstLine(e.Message)}
		if m := undeclared.FindStringSubmatch(e.Message); m != nil {
			p.Message, p.Suggestion = l.unknown(m[1])
		}
		out = append(out, p)
	}
	return out
}

func firstLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.TrimPrefix(text, "Syntax error: ")
}

// unknown says what is not known, and what was probably meant.
func (l *Language) unknown(name string) (message, suggestion string) {
	if name, ok := strings.CutPrefix(name, networksPrefix); ok {
		if near := config.Nearest(name, l.networks); near != "" {
			suggestion = networksPrefix + near
		}
		return fmt.Sprintf("no network is called %q", name), suggestion
	}
	switch name {
	case "networks":
		return "networks needs a name, such as networks.office", ""
	case "token", "query":
		return name + " is a secret and cannot be read here; has_token says whether there is a token", ""
	case "now":
		return `there is no "now"`, "time"
	}
	return fmt.Sprintf("there is no %q", name), config.Nearest(name, l.names())
}

var countryForm = regexp.MustCompile(`^([A-Z]{2})?$`)

// constants reads what our functions are called with, and finds countries that no address is in.
func (l *Language) constants(a *ast.AST) []Problem {
	var out []Problem
	report := func(e ast.Expr, format string, args ...any) {
		at := a.SourceInfo().GetStartLocation(e.ID())
		if len(out) < maxProblems {
			out = append(out, Problem{Line: max(at.Line(), 1), Column: max(at.Column()+1, 1), Message: fmt.Sprintf(format, args...)})
		}
	}
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		switch name := call.FunctionName(); name {
		case inFunction, hourFunction, weekdayFunction:
			arg := call.Args()[len(call.Args())-1]
			text, ok := constant(arg)
			if !ok {
				report(arg, "%s() takes a constant in quotes", name)
			} else if err := l.learn(name, text); err != nil {
				report(arg, "%s(): %v", name, err)
			}
		case operators.Equals, operators.NotEquals, operators.In:
			for _, v := range comparedWith(call, slotCountry) {
				if text, ok := constant(v); ok && !countryForm.MatchString(text) {
					report(v, "country is never %q; want two upper-case letters as in ISO 3166, such as DE", text)
				}
			}
		}
	}))
	return out
}

// comparedWith are the values that the variable is compared with by ==, != and in.
func comparedWith(call ast.CallExpr, s slot) []ast.Expr {
	args := call.Args()
	for i, arg := range args {
		if arg.Kind() != ast.IdentKind || arg.AsIdent() != variables[s].name {
			continue
		}
		other := args[1-i]
		if other.Kind() == ast.ListKind {
			return other.AsList().Elements()
		}
		return []ast.Expr{other}
	}
	return nil
}

// constant is the text of a constant.
func constant(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}
