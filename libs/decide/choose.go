package decide

import "usher.internal/libs/access"

// choose finds the rule's checks that are for this question (for). A check that is not is not
// asked, as if it did not stand in the rule: tokens of one brand never reach the other's
// upstream. If none is left the viewer is refused, and choose says false.
func (j *judgement) choose() bool {
	j.verifiers, j.upstreams = j.rule.verifiers, j.rule.upstreams
	if !j.rule.choosy {
		return true
	}
	j.verifiers, j.upstreams = j.those(j.rule.verifiers), j.those(j.rule.upstreams)
	switch {
	case len(j.verifiers)+len(j.upstreams) > 0:
		return true
	case j.req.Token == "":
		j.verdict.deny(access.NoToken, "no check of the rule is for this question, and the viewer brought no token", "")
	default:
		j.verdict.deny(access.BadToken, "no check of the rule is for this host, node, network and form of token", "")
	}
	return false
}

func (j *judgement) those(all []*check) []*check {
	out := make([]*check, 0, len(all))
	for _, c := range all {
		if other := c.other(j.req); other != "" {
			j.trail.add("check "+c.Name, notFor, "it is for another "+other)
			continue
		}
		out = append(out, c)
	}
	return out
}

// other says what of the question is another than the check is for, "" if it is for it.
func (c *check) other(r *access.Request) string {
	return c.For.Other(r, c.area.contains(r.IP))
}
