package policyimport

import (
	"fmt"
	"strings"

	"usher.internal/libs/match"
)

// flussonic turns a flussonic.conf into a draft.
type flussonic struct {
	*draft
	backends  map[string]*directive // auth_backend blocks, by name
	templates map[string]*directive
	made      map[string]*rule  // by what stood in the file
	anchors   map[string]string // of rules, by their text
	known     map[string]string // checks, by what they are
}

// Flussonic reads the authorization of a flussonic.conf. The error is a *BadFile.
func Flussonic(data []byte, o Options) (*Result, error) {
	list, err := parseFlussonic(data)
	if err != nil {
		return nil, err
	}
	f := &flussonic{
		draft: newDraft(), backends: map[string]*directive{}, templates: map[string]*directive{},
		made: map[string]*rule{}, anchors: map[string]string{}, known: map[string]string{},
	}
	var global []*directive
	for _, d := range list {
		switch d.words[0] {
		case "auth_backend":
			f.backends[d.arg(0)] = d
		case "template":
			f.templates[d.arg(0)] = d
		case "on_play", "auth", "on_publish", "domain", "domains", "max_sessions", "session_keys", "soft_limitation":
			global = append(global, d)
		case "auth_token":
			f.top = append(f.top, f.note("line %d: auth_token: Flussonic passes the token on as token, whatever viewers call it", d.line))
		case "aliaser":
			f.top = append(f.top, f.note("line %d: aliaser: write its names as aliases (map, or http for a service)", d.line))
		case "geoip":
			f.top = append(f.top, f.note("line %d: geoip: give workers the country database", d.line))
		}
	}
	f.streams(list, global)
	return &Result{Policy: f.render("a flussonic.conf", "flussonic", o), Notes: f.notes}, nil
}

// streams writes a rule for each stream, then for each prefix, then for all others.
func (f *flussonic) streams(list, global []*directive) {
	for _, exact := range []bool{true, false} {
		for _, d := range list {
			own := append(append([]*directive{}, global...), f.template(d)...)
			switch d.words[0] {
			case "stream", "ondemand":
				if exact {
					f.rule(d.arg(0), append(own, d.block...), d.line)
				}
			case "file", "vod", "live", "cache", "rewrite", "mixer":
				if !exact {
					f.rule(d.arg(0)+"/**", append(own, d.block...), d.line)
				}
			case "template":
				for _, sub := range d.block {
					if !exact && sub.words[0] == "prefix" {
						f.rule(sub.arg(0)+"/**", append(append([]*directive{}, global...), d.block...), d.line)
					}
				}
			}
		}
	}
	if hasAuth(global) {
		f.rule("**", global, 1)
	} else {
		f.top = append(f.top, f.note("streams that the file does not name are denied here; Flussonic lets everybody see what has no on_play"))
	}
}

// template is what a stream takes over.
func (f *flussonic) template(d *directive) []*directive {
	for _, sub := range d.block {
		if sub.words[0] == "template" {
			if t := f.templates[sub.arg(0)]; t != nil {
				return t.block
			}
		}
	}
	return nil
}

func hasAuth(list []*directive) bool {
	for _, d := range list {
		if d.words[0] == "on_play" || d.words[0] == "auth" {
			return true
		}
	}
	return false
}

// rule writes one rule. What stands later in own goes before what stands earlier; on_play goes
// before auth wherever it stands.
func (f *flussonic) rule(pattern string, own []*directive, line int) {
	pattern = strings.TrimPrefix(pattern, "/")
	plain := strings.TrimSuffix(pattern, "/**")
	glob, err := match.ParseGlob(pattern)
	if err != nil || pattern != "**" && (plain == "" || strings.Contains(plain, "*")) || pattern == "**" && glob == nil {
		f.rules.WriteString(comment("  ", f.note("line %d: the name %q cannot stand in a rule", line, shown(plain))))
		return
	}
	var play, auth *directive
	var beside []*directive
	for _, d := range own {
		switch d.words[0] {
		case "on_play":
			play = d
		case "auth":
			auth = d
		case "domain", "domains", "max_sessions", "soft_limitation", "session_keys":
			beside = append(beside, d)
		case "on_publish", "publish_enabled", "password":
			f.rules.WriteString(comment("  ", f.note("line %d: %s of %s: publishing was not carried over", d.line, d.words[0], shown(plain))))
		}
	}
	if play == nil {
		play = auth
	}
	r := f.spec(play, beside)
	f.write(pattern, r)
}

// write adds the rule; one whose like was written before refers to it.
func (f *flussonic) write(pattern string, r *rule) {
	body := r.text()
	for _, n := range r.notes {
		f.rules.WriteString(comment("  ", n))
	}
	r.notes = nil // told once
	if anchor := f.anchors[body]; anchor != "" {
		fmt.Fprintf(&f.rules, "  - {<<: *%s, match: %s}\n", anchor, quote(pattern))
		return
	}
	anchor := fmt.Sprintf("rule%d", len(f.anchors)+1)
	f.anchors[body] = anchor
	fmt.Fprintf(&f.rules, "  - &%s\n    match: %s\n%s", anchor, quote(pattern), body)
}

// spec is the rule of what stands behind on_play, made once for all streams with the same.
func (f *flussonic) spec(play *directive, beside []*directive) *rule {
	key := ""
	for _, d := range append([]*directive{play}, beside...) {
		if d != nil {
			key += fmt.Sprintf("%q %d ", d.words[1:], len(d.block))
			for _, sub := range d.block {
				key += fmt.Sprintf("%q ", sub.words)
			}
		}
	}
	if r := f.made[key]; r != nil {
		return r
	}
	r := &rule{mode: "allow"}
	f.made[key] = r
	if play != nil {
		f.backend(r, play.arg(0), play.line)
		for _, word := range play.words[min(2, len(play.words)):] {
			option, value, _ := strings.Cut(word, "=")
			r.restrict(f.draft, play.line, option, []string{value})
		}
		for _, sub := range play.block {
			r.restrict(f.draft, sub.line, sub.words[0], sub.words[1:])
		}
	}
	for _, d := range beside {
		r.restrict(f.draft, d.line, d.words[0], d.words[1:])
	}
	return r
}

// backend is what may stand where Flussonic expects the address of a backend.
func (f *flussonic) backend(r *rule, target string, line int) {
	scheme, rest, found := strings.Cut(target, "://")
	switch {
	case target == "true":
	case !found && strings.HasSuffix(target, ".lua"):
		r.mode = "deny"
		r.notes = append(r.notes, f.note("line %d: a Lua script decided here; nobody gets in until auth names a check", line))
	case scheme == "auth" && f.backends[rest] != nil:
		f.constructor(r, f.backends[rest])
	case scheme == "securetoken":
		r.checks = append(r.checks, f.securetoken(rest, line, r))
	case scheme == "iptv" && found:
		r.checks = append(r.checks, f.check("subscribers", "{type: users}", nil))
		r.notes = append(r.notes, f.note("line %d: iptv://: bring the plug-in's subscribers in with usher users import csv", line))
	case scheme == "http" || scheme == "https":
		address, notes, ok := f.address(target, line)
		r.notes = append(r.notes, notes...)
		if ok {
			r.checks = append(r.checks, f.check(hostOf(address), fmt.Sprintf("{type: flussonic, url: %s}", quote(address)), nil))
			return
		}
		fallthrough
	default:
		r.mode = "deny"
		r.notes = append(r.notes, f.note("line %d: what decides here cannot be carried over; nobody gets in until auth names a check", line))
	}
}

// constructor is an auth_backend block: lists first, then its backends, then allow default.
func (f *flussonic) constructor(r *rule, block *directive) {
	byDefault, lost := false, false
	for _, d := range block.block {
		switch action, kind := d.words[0], d.arg(0); {
		case action == "allow" && kind == "default":
			byDefault = true
		case (action == "allow" || action == "deny") && (kind == "token" || kind == "ip" || kind == "country" || kind == "ua"):
			r.list(f.draft, d.line, action, kind, d.words[2:])
		case action == "backend" && strings.HasPrefix(kind, "auth://"):
			lost = true
			r.notes = append(r.notes, f.note("line %d: an auth_backend inside another was not carried over", d.line))
		case action == "backend":
			r.mode = "allow"
			f.backend(r, kind, d.line)
			byDefault, lost = byDefault || kind == "true", lost || r.mode == "deny"
		default:
			r.notes = append(r.notes, f.note("line %d: %s %s was not carried over", d.line, shown(action), shown(kind)))
		}
	}
	if byDefault && len(r.checks) > 0 {
		r.unavailable = "allow"
		r.notes = append(r.notes, f.note("line %d: allow default: whoever comes while no backend answers is let in; on_unavailable: grace would let known viewers in alone", block.line))
	}
	// What could not be carried over might have said no: it never opens a stream.
	r.mode = "deny"
	if byDefault && !lost {
		r.mode = "allow"
	}
}

// securetoken is a check of its own for each key.
func (f *flussonic) securetoken(rest string, line int, r *rule) string {
	key, query, _ := strings.Cut(rest, "?")
	options := ""
	if strings.Contains("&"+query+"&", "&no_check_ip=true&") {
		options = ", check_ip: false"
	}
	id := "securetoken " + key + options
	if name := f.known[id]; name != "" {
		return name
	}
	reference, note := f.secret("the key of securetoken://", line)
	name := f.check("securetoken", fmt.Sprintf("{type: securetoken, secret: %s%s}", quote(reference), options), []string{note})
	f.known[id] = name
	return name
}

// check writes a check once and gives its name.
func (f *flussonic) check(wish, body string, notes []string) string {
	if name := f.known[body]; name != "" {
		return name
	}
	name := f.name(wish)
	f.known[body] = name
	for _, n := range notes {
		f.checks.WriteString(comment("  ", n))
	}
	fmt.Fprintf(&f.checks, "  %s: %s\n", name, body)
	return name
}

func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	return host
}
