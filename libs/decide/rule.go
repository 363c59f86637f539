package decide

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/geo"
	"usher.internal/libs/policy"
)

// rule is a policy rule made ready.
type rule struct {
	*policy.Rule
	allow, deny lists
	listed      bool // it has any allow or deny list
	domains     []string
	verifiers   []*check // in the order of auth, own subscribers among them
	upstreams   []*check
	choosy      bool // a check has for:
	special     bool // a limit is not of the account over all rules
	// Own rules that do not read the user, and those that do.
	ownBefore, ownAfter ownRules
}

// number is the limit that a check's number is: 0 where the policy's own counts and not the
// middleware's (from).
func (r *rule) number(c *check, n int) int {
	own := slices.ContainsFunc(r.Limits, func(l *policy.Limit) bool { return l.OfUser() && l.Sessions > 0 })
	if c.From == policy.FromPolicy || c.From == "" && c.OddNumber && own {
		return 0
	}
	return n
}

// lists are policy.Lists with tokens as fingerprints.
type lists struct {
	policy.Lists
	tokens map[access.Key]struct{}
	area   area
}

func (e *Engine) compile(r *policy.Rule) (*rule, error) {
	out := &rule{
		Rule: r, allow: e.lists(r.Allow), deny: e.lists(r.Deny),
		ownBefore: own(r.Own, false), ownAfter: own(r.Own, true),
	}
	out.listed = !r.Allow.Empty() || !r.Deny.Empty()
	out.special = slices.ContainsFunc(r.Limits, func(l *policy.Limit) bool { return !l.OfUser() })
	for _, d := range r.Domains {
		out.domains = append(out.domains, hostName(d))
	}
	for _, pc := range r.Checks {
		c, ok := e.checks[pc.Name]
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: check %s is not ready", r.Name(), pc.Name)
		case c.verifier != nil || c.accounts != nil:
			out.verifiers = append(out.verifiers, c)
		default:
			out.upstreams = append(out.upstreams, c)
		}
		out.choosy = out.choosy || pc.For != nil
	}
	return out, nil
}

func (e *Engine) lists(l policy.Lists) lists {
	out := lists{Lists: l, tokens: map[access.Key]struct{}{}, area: e.area(&l.Network)}
	for _, t := range l.Tokens {
		out.tokens[policy.TokenKey(e.deps.Keyer, t)] = struct{}{}
	}
	return out
}

// viewer is what lists are held against.
type viewer struct {
	token access.Key
	ip    netip.Addr
	place geo.Place
	ua    string
}

// listNames are the lists in Flussonic's order (spec flussonic §4), with ours beside their
// kin: of each kind the allow list comes before the deny list.
var listNames = [...]string{"token", "ip", "network", "country", "asn", "ua"}

// hit says whether the viewer stands in the list of this kind.
func (l *lists) hit(kind string, v *viewer) bool {
	switch kind {
	case "token":
		_, ok := l.tokens[v.token]
		return ok && !v.token.IsZero()
	case "ip":
		return v.ip.IsValid() && slices.ContainsFunc(l.IPs, func(p netip.Prefix) bool { return p.Contains(v.ip) })
	case "network":
		return l.area.contains(v.ip)
	case "country":
		return v.place.Country != "" && slices.ContainsFunc(l.Country, func(c string) bool { return strings.EqualFold(c, v.place.Country) })
	case "asn":
		return v.place.ASN != 0 && slices.Contains(l.ASN, v.place.ASN)
	default:
		return v.ua != "" && slices.ContainsFunc(l.UA, func(part string) bool { return strings.Contains(v.ua, part) })
	}
}

// onList finds the first list that the viewer stands in: "allow ip", "deny ua" …;
// "" if none.
func (r *rule) onList(v *viewer) (name string, allowed bool) {
	for _, kind := range listNames {
		if r.allow.hit(kind, v) {
			return "allow " + kind, true
		}
		if r.deny.hit(kind, v) {
			return "deny " + kind, false
		}
	}
	return "", false
}

// embeds says whether the page that Referer names may embed the player. No Referer, or one
// without a host, may (spec flussonic §7) unless the rule says otherwise.
func (r *rule) embeds(referer string) bool {
	if len(r.domains) == 0 {
		return true
	}
	u, err := url.Parse(referer)
	if err != nil || u.Hostname() == "" {
		return !r.DenyEmptyReferer
	}
	host := hostName(u.Hostname())
	return slices.ContainsFunc(r.domains, func(d string) bool {
		if below, ok := strings.CutPrefix(d, "*."); ok {
			return strings.HasSuffix(host, "."+below) && len(host) > len(below)+1
		}
		return host == d
	})
}

func hostName(s string) string { return strings.TrimSuffix(strings.ToLower(s), ".") }
