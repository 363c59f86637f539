package policyimport

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// rule is what a stream's rule says besides match.
type rule struct {
	mode        string // allow | deny, "" where checks decide
	checks      []string
	allow, deny map[string][]string
	domains     []string
	sessions    int
	soft        bool // Flussonic lets one more in for 90 s
	unavailable string
	notes       []string
}

var listKinds = []string{"token", "ip", "country", "ua"}

// text is the rule as YAML, without match.
func (r *rule) text() string {
	var b strings.Builder
	for _, l := range []struct {
		name string
		list map[string][]string
	}{{"allow", r.allow}, {"deny", r.deny}} {
		var parts []string
		for _, kind := range listKinds {
			if len(l.list[kind]) > 0 {
				parts = append(parts, kind+": ["+quoted(l.list[kind])+"]")
			}
		}
		if len(parts) > 0 {
			fmt.Fprintf(&b, "    %s: {%s}\n", l.name, strings.Join(parts, ", "))
		}
	}
	if len(r.domains) > 0 {
		fmt.Fprintf(&b, "    domains: [%s]\n", quoted(r.domains))
	}
	switch {
	case len(r.checks) == 1:
		fmt.Fprintf(&b, "    auth: %s\n", r.checks[0])
	case len(r.checks) > 1:
		fmt.Fprintf(&b, "    auth: {any: [%s]}\n", strings.Join(r.checks, ", "))
	default:
		fmt.Fprintf(&b, "    auth: %s\n", r.mode)
	}
	switch {
	case r.sessions > 0 && r.soft:
		fmt.Fprintf(&b, "    limit: {sessions: %d, mode: soft}\n", r.sessions)
	case r.sessions > 0:
		fmt.Fprintf(&b, "    limit: {sessions: %d}\n", r.sessions)
	case r.soft && len(r.checks) > 0: // the backend's own number
		b.WriteString("    limit: {mode: soft}\n")
	}
	if r.unavailable != "" {
		fmt.Fprintf(&b, "    on_unavailable: %s\n", r.unavailable)
	}
	return b.String()
}

// list adds to a list what the policy can hold.
func (r *rule) list(d *draft, line int, action, kind string, values []string) {
	into := &r.allow
	if action == "deny" {
		into = &r.deny
	}
	if *into == nil {
		*into = map[string][]string{}
	}
	for _, v := range values {
		if !fits(kind, v) {
			r.notes = append(r.notes, d.note("%s%s %s: %s cannot be read", at(line), action, kind, entry(kind, v)))
			continue
		}
		(*into)[kind] = append((*into)[kind], v)
	}
}

// entry is how a note names a value: tokens are never repeated.
func entry(kind, v string) string {
	if kind == "token" {
		return "an entry"
	}
	return strconv.Quote(shown(v))
}

var (
	countryForm = regexp.MustCompile(`^[A-Za-z]{2}$`)
	domainForm  = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
)

func fits(kind, v string) bool {
	switch kind {
	case "ip":
		_, err := config.ParsePrefix(v)
		return err == nil
	case "country":
		return countryForm.MatchString(v)
	case "token":
		return v != "" && len(v) <= access.MaxToken && !strings.HasPrefix(v, "fp:") && access.Clean(v, access.MaxToken) == v
	default:
		return v != "" && access.Clean(v, access.MaxUserAgent) == v
	}
}

// restrict adds what stands beside a backend's address.
func (r *rule) restrict(d *draft, line int, key string, values []string) {
	var list []string
	for _, v := range values {
		list = append(list, strings.FieldsFunc(v, func(c rune) bool { return c == ',' })...)
	}
	switch key {
	case "max_sessions":
		if n, err := strconv.Atoi(strings.Join(list, "")); err == nil && n > 0 && n <= 1_000_000 {
			r.sessions = n
			return
		}
		r.notes = append(r.notes, d.note("line %d: max_sessions is no number of sessions", line))
	case "domains", "domain":
		for _, v := range list {
			v = strings.TrimSuffix(strings.ToLower(v), ".")
			if !domainForm.MatchString(v) || len(v) > access.MaxHost {
				r.notes = append(r.notes, d.note("line %d: domains: %q is no domain", line, shown(v)))
				continue
			}
			r.domains = append(r.domains, v)
		}
	case "allowed_countries":
		r.list(d, line, "allow", "country", list)
	case "disallowed_countries":
		r.list(d, line, "deny", "country", list)
	case "soft_limitation":
		r.soft = len(list) == 0 || list[0] != "false" && list[0] != "0" && list[0] != "off"
	case "session_keys":
		r.notes = append(r.notes, d.note("line %d: session_keys: a session here is Flussonic's own session_id; keep the keys in Flussonic", line))
	default:
		r.notes = append(r.notes, d.note("line %d: %s was not carried over", line, shown(key)))
	}
}

// secretParam are parameters whose values may be keys.
var secretParam = regexp.MustCompile(`(?i)key|secret|token|pass|pwd|auth|sig|login|user`)

// address is a backend's, without what may be a key.
func (d *draft) address(raw string, line int) (address string, notes []string, ok bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || access.Clean(raw, access.MaxPath) != raw {
		return "", nil, false
	}
	if u.User != nil {
		u.User = nil
		notes = append(notes, d.note("%sthe user and the password of the address were not copied", at(line)))
	}
	u.Fragment, u.RawFragment = "", ""
	kept := make([]string, 0, 4)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if value != "" && secretParam.MatchString(name) {
			notes = append(notes, d.note("%sthe value of %q in the address was not copied: it may be a key", at(line), shown(name)))
			continue
		}
		if pair != "" {
			kept = append(kept, pair)
		}
	}
	u.RawQuery = strings.Join(kept, "&")
	return u.String(), notes, !strings.ContainsAny(u.String(), " \t{}\\")
}
