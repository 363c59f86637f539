package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// warn says what is allowed but hardly meant, or costs more than it seems.
func (c *compiler) warn() {
	if len(c.snapshot.Nodes) == 0 {
		c.warnf(path{"nodes"}, "there are none: nobody may ask")
	}
	if len(c.snapshot.Rules) == 0 {
		c.warnf(path{"streams"}, "there are none: every question is denied")
	}
	index := indexOf(c.snapshot.Rules)
	silent, hold := c.silentNodes()
	used := map[*Check]bool{}
	for i, r := range c.snapshot.Rules {
		at := path{"streams", i}
		c.warnMatch(at.sub("match"), r)
		if j := index.Shadows(i, func(j int) bool { return c.snapshot.Rules[j].When == nil }); j >= 0 {
			c.warnf(at, "is never reached: %s in line %d comes first and matches all that it does",
				c.snapshot.Rules[j].Name(), c.snapshot.Rules[j].Line)
		}
		c.warnNobody(at.sub("auth"), r)
		c.regions(at, r)
		if r.Auth != AuthDeny {
			c.warnLimits(at.sub("limit"), r, silent, hold)
		}
		for _, check := range r.Checks {
			used[check] = true
		}
	}
	c.usedByAnswer(used)
	for _, name := range c.doc.Keys("checks") {
		check := c.snapshot.Checks[name]
		if !used[check] {
			c.warnf(path{"checks", name}, "no rule uses it")
			continue
		}
		c.warnSlow(path{"checks", name, "timeout"}, check)
		c.warnFor(path{"checks", name, "for", "node"}, check.For)
	}
}

// usedByAnswer notes the checks that are asked for viewers in shadow.
func (c *compiler) usedByAnswer(used map[*Check]bool) {
	for _, n := range c.snapshot.Nodes {
		used[n.Answer] = true
	}
	for _, r := range c.snapshot.Rules {
		used[r.Answer] = true
	}
}

func (c *compiler) warnMatch(at path, r *Rule) {
	pattern := r.Match.String()
	if strings.HasPrefix(pattern, "/") {
		c.warnf(at, "%q begins with a slash, which no stream's name does", pattern)
	}
	if strings.ContainsAny(pattern, "?[]{}") {
		c.warnf(at, "in %q only * and ** are special; all other characters stand for themselves", pattern)
	}
}

// regions notes where the country or the operator of an address is looked at.
func (c *compiler) regions(at path, r *Rule) {
	for _, l := range []struct {
		key  string
		list *Lists
	}{{"allow", &r.Allow}, {"deny", &r.Deny}} {
		if len(l.list.Country) > 0 {
			c.region(at.sub(l.key, "country"), blindList)
		}
		if len(l.list.ASN) > 0 {
			c.region(at.sub(l.key, "asn"), blindList)
		}
	}
}

// What lists and expressions do without a database.
const (
	blindList = "without a country database it matches nothing (usher up --geoip)"
	blindExpr = "without a country database country and org are \"\" and asn is 0 (usher up --geoip)"
)

func (c *compiler) region(at path, text string) {
	if len(c.snapshot.Located) > maxReported {
		return
	}
	p := c.doc.Problem("", at...)
	p.Warning = true
	p.Message = sentence(p.Path, text)
	if len(c.snapshot.Located) == maxReported {
		p.Message = "there are more rules that need a country database"
	}
	c.snapshot.Located = append(c.snapshot.Located, p)
}

// warnNobody says where no check of a rule is ever for a question of any node.
func (c *compiler) warnNobody(at path, r *Rule) {
	if len(r.Checks) == 0 || len(c.snapshot.Nodes) == 0 {
		return
	}
	for node := range c.snapshot.Nodes {
		if slices.ContainsFunc(r.Checks, func(check *Check) bool { return check.For.MayAsk(node) }) {
			return
		}
	}
	c.warnf(at, "names only checks that are for no node of this policy: every viewer is refused")
}

// warnFor says where a check is for nodes that are not there.
func (c *compiler) warnFor(at path, f *For) {
	if f == nil {
		return
	}
	for i, g := range f.Nodes {
		found := false
		for node := range c.snapshot.Nodes {
			found = found || g.Match(node)
		}
		if !found && len(c.snapshot.Nodes) > 0 {
			c.warnf(at.sub(i), "no node is called %q", g.String())
		}
	}
}

// warnNameless says where a limit by user has no user to count by.
func (c *compiler) warnNameless(at path, r *Rule) {
	if r.Auth == AuthAllow {
		c.warnf(at, "counts by user, but auth: allow names none: it counts by token, and without a token by address")
		return
	}
	if names := namelessChecks(r); names != "" {
		c.warnf(at, "counts by user, but %s names none: who comes by it is counted by token, and without a token by address", names)
	}
}

// warnSilent says how soon a limit is full where a seat outlives its viewer.
func (c *compiler) warnSilent(at path, l *Limit, nodes string, hold config.Duration) {
	n := l.Sessions
	if n == 0 {
		n = l.Max
	}
	if l.Mode == access.Soft {
		c.warnf(at, "is soft and reached from %s, where nobody says whether a viewer still plays: who is beyond it counts as gone after a third of its time, "+
			"playing or not", nodes)
		return
	}
	zaps, effect := strconv.Itoa(n)+" zaps", "lock the viewer out"
	if l.Mode == access.EvictOldest {
		effect = "take all seats, and each further one evicts the oldest session, playing or not,"
	}
	switch n {
	case 0:
		zaps = "as many zaps as the check allows sessions"
	case 1:
		zaps = "1 zap"
		effect = strings.NewReplacer("lock ", "locks ", "take ", "takes ").Replace(effect)
	}
	c.warnf(at, "is reached from %s, where nobody says that a viewer has left: %s that cannot be told to be one device's %s for up to %s (hold)",
		nodes, zaps, effect, hold)
}

// namelessChecks are the checks by which a viewer can come in without a user.
func namelessChecks(r *Rule) string {
	var names []string
	for _, check := range r.Checks {
		if !check.NamesUser {
			names = append(names, check.Name)
		} else if r.Auth == AuthAll {
			return "" // one of all is enough
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "check " + strings.Join(names, ", ")
}

// silentNodes are the nodes without signs of life, and their longest hold.
func (c *compiler) silentNodes() (names string, hold config.Duration) {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(c.snapshot.Nodes)) {
		if n := c.snapshot.Nodes[name]; !n.ShowsLife() {
			list = append(list, name)
			hold = max(hold, config.Duration(n.Hold))
		}
	}
	return nodeList(list), hold
}

func nodeList(names []string) string {
	const shown = 5
	switch {
	case len(names) == 0:
		return ""
	case len(names) == 1:
		return "node " + names[0]
	case len(names) > shown:
		return "nodes " + strings.Join(names[:shown], ", ") + " and " + strconv.Itoa(len(names)-shown) + " more"
	}
	return "nodes " + strings.Join(names, ", ")
}

// warnSlow compares a check's timeout with the budgets of the nodes.
func (c *compiler) warnSlow(at path, check *Check) {
	var names []string
	least := config.Duration(longBudget)
	for _, name := range slices.Sorted(maps.Keys(c.snapshot.Nodes)) {
		if n := c.snapshot.Nodes[name]; n.Budget < check.Timeout {
			names = append(names, name)
			least = min(least, config.Duration(n.Budget))
		}
	}
	if len(names) > 0 {
		c.warnf(at, "%s is longer than the budget of %s (%s): there it is cut short, and the fail mode answers for what takes longer",
			config.Duration(check.Timeout), nodeList(names), least)
	}
}
