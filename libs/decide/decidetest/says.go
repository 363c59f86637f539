package decidetest

import (
	"regexp"
	"strings"
	"testing"

	"usher.internal/libs/access"
)

// deciders are the steps that can decide, by the beginning of their names; %s is what the
// text must say of them, with the rest of the name in place of NAME.
var deciders = []struct{ step, text string }{
	{"node", "node"},
	{"alias", "alias|stream's own name"},
	{"action", "publishing"},
	{"rule", "rule"},
	{"allow ", "allow NAME of streams\\["},
	{"deny ", "deny NAME of streams\\["},
	{"domains", "domains of streams\\["},
	{"auth", "streams\\["},
	{"client ", "NAME"},
	{"check ", "check NAME|no check of the rule|no check works without"},
	{"fail mode ", "check NAME"},
	{"ban", "ban"},
	{"override", "override"},
	{"own rule", "rule"},
	{"when", "rule"},
	{"archive", "archive of "},
	{"limit", "seats|limit"},
	{"shadow", "tried out|answers here|would"},
}

// around are the steps that stand around the engine's own and decide nothing.
var around = map[string]bool{"edge to worker": true, "seat": true, "grants": true, "limit when": true}

// SaysWho holds a decision to what every decision must tell an operator: the last step names
// the check, rule, list, directive or limit that decided, and the text (unless it is not shown
// at this level: "") names it too, in words of more than one syllable.
func SaysWho(t testing.TB, reason, text string, steps []access.Step) {
	t.Helper()
	last := access.Step{}
	for _, s := range steps {
		if !around[s.Name] && !(s.Name == "limit" && (s.Result == "asked" || s.Result == "none")) {
			last = s
		}
	}
	if last.Name == "" || last.Result == "" {
		t.Errorf("decision %s: no step says who decided: %+v", reason, steps)
		return
	}
	for _, d := range deciders {
		rest, ok := strings.CutPrefix(last.Name, d.step)
		if !ok || rest != "" && !strings.HasSuffix(d.step, " ") && !strings.HasPrefix(rest, " ") {
			continue
		}
		// Of several checks any may have had the last word, also beside the fail mode of another
		// or in a trial; that one is named.
		want := strings.ReplaceAll(d.text, "NAME", regexp.QuoteMeta(rest))
		if d.step == "check " || d.step == "fail mode " || d.step == "shadow" {
			want += "|" + anyOf(steps)
		}
		if text != "" && !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("decision %s, by %q: the text does not say so: %s", reason, last.Name, text)
		}
		if text != "" && len(strings.Fields(text)) < 2 {
			t.Errorf("decision %s: no words for an operator: %q", reason, text)
		}
		return
	}
	t.Errorf("decision %s: its last step %q is none that decides", reason, last.Name)
}

// anyOf matches the name of each check that was asked.
func anyOf(steps []access.Step) string {
	var names []string
	for _, s := range steps {
		if strings.HasPrefix(s.Name, "check ") && s.Result != "not for this" && s.Result != "not needed" {
			names = append(names, regexp.QuoteMeta(s.Name)+`\b`)
		}
	}
	if len(names) == 0 {
		return "no check"
	}
	return strings.Join(names, "|")
}
