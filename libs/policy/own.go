package policy

import (
	"fmt"
	"maps"
	"slices"

	"usher.internal/libs/access"
	"usher.internal/libs/condition"
	"usher.internal/libs/config"
)

// Own is one of the operator's own rules.
type Own struct {
	Name string
	When *condition.Expr
	// Allow lets the viewer in, without any check where the rule does not read the user; else he
	// is refused.
	Allow bool
	// OnDeny is where a refused viewer is sent, nil for what the stream's rule says.
	OnDeny map[access.Reason]string
}

// tokenless says whether the rule may let a viewer in who brings no token.
func (o *Own) tokenless() bool { return o.Allow && !o.When.ReadsUser() && !o.When.NeedsToken() }

type fileOwn struct {
	Name string    `yaml:"name"`
	When string    `yaml:"when"`
	Then *fileThen `yaml:"then"`
}

// fileThen is a word, or an address for those who are refused.
type fileThen struct {
	word string
	deny struct {
		Deny string `yaml:"deny"`
	}
}

const thenForms = `allow, deny or {deny: "https://…"}`

// Shape implements config.Shaper.
func (t *fileThen) Shape(kind config.Kind) any {
	switch kind {
	case config.Scalar:
		return &t.word
	case config.Map:
		return &t.deny
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (t *fileThen) Wants() string { return thenForms }

// own compiles a list of own rules.
func (c *compiler) own(at path, files []*fileOwn) []*Own {
	var list []*Own
	seen := map[string]bool{}
	for i, f := range files {
		if f == nil {
			continue
		}
		where := at.sub(i)
		c.name(where.sub("name"), f.Name)
		if seen[f.Name] {
			c.errorf(where.sub("name"), "", "%q stands twice; steps and metrics tell rules by their names", f.Name)
		}
		seen[f.Name] = true
		o := &Own{Name: f.Name}
		if c.doc.Has(where.sub("when")...) {
			o.When = c.expression(where.sub("when"), f.When)
		} else {
			c.errorf(where.sub("when"), "", `is missing: write an expression such as country == "DE", or true`)
		}
		c.then(where.sub("then"), o, f.Then)
		if o.When != nil {
			list = append(list, o)
		}
	}
	return list
}

func (c *compiler) then(at path, o *Own, f *fileThen) {
	switch {
	case f == nil:
		c.errorf(at, "", "is missing; want %s", thenForms)
	case f.word == "allow":
		o.Allow = true
	case f.word == "deny":
	case f.word != "":
		c.errorf(at, config.Nearest(f.word, []string{"allow", "deny"}), "%q is not known; want %s", f.word, thenForms)
	case !c.doc.Has(at.sub("deny")...):
		c.errorf(at, "", "want %s", thenForms)
	default:
		if !isWebURL(f.deny.Deny) {
			c.errorf(at.sub("deny"), "", "want an address that begins with http:// or https://")
		}
		o.OnDeny = map[access.Reason]string{access.DenyRule: f.deny.Deny}
	}
}

// expression compiles an expression, nil if something is wrong with it.
func (c *compiler) expression(at path, text string) *condition.Expr {
	if c.language == nil {
		var err error
		if c.language, err = condition.New(slices.Sorted(maps.Keys(c.snapshot.Networks))); err != nil {
			c.errorf(at, "", "%s", err)
			return nil
		}
	}
	expr, problems := c.language.Compile(text)
	for _, p := range problems {
		c.errorf(at, p.Suggestion, "%s", positioned(p))
	}
	if expr != nil && expr.ReadsPlace() {
		c.region(at, blindExpr)
	}
	return expr
}

// positioned says where in the expression the problem is, unless it is the whole.
func positioned(p condition.Problem) string {
	switch {
	case p.Line == 1 && p.Column == 1:
		return p.Message
	case p.Line == 1:
		return fmt.Sprintf("at character %d: %s", p.Column, p.Message)
	}
	return fmt.Sprintf("at line %d, character %d: %s", p.Line, p.Column, p.Message)
}

// before compiles an expression that is asked before anybody knows the user.
func (c *compiler) before(at path, text *string) *condition.Expr {
	if text == nil {
		return nil
	}
	expr := c.expression(at, *text)
	if expr != nil && expr.ReadsUser() {
		c.errorf(at, "", "looks at user, realm or sessions, which the checks tell; the rule says which checks are asked. Use rules or a limit's when")
	}
	return expr
}
