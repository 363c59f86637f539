// Package policyimport reads what an operator has configured elsewhere into a policy to start
// from: the authorization of a flussonic.conf, the users and settings of Astra's JSON. What
// cannot be carried over stands as a comment beside what could; keys and passwords are never
// copied, only named.
package policyimport

import (
	"fmt"
	"strings"

	"usher.internal/libs/access"
)

const (
	// maxFile bounds what is read.
	maxFile = 8 << 20
	// maxNote bounds what a comment repeats of the file.
	maxNote = 200
)

// Options are what no file says.
type Options struct {
	// Node is the server's name in the policy, From the addresses that it asks from.
	Node string
	From []string
}

// Result is a policy to start from.
type Result struct {
	Policy []byte
	// Users is a file for usher users import csv, nil if there are none.
	Users []byte
	// Notes are what could not be carried over, or needs the operator's hand; they stand in the
	// policy too.
	Notes []string
}

// BadFile says where a file cannot be understood. It repeats nothing of the file.
type BadFile struct {
	Line int
	Text string
}

// Error implements error.
func (b *BadFile) Error() string { return fmt.Sprintf("line %d: %s", b.Line, b.Text) }

func badf(line int, format string, args ...any) error {
	return &BadFile{line, fmt.Sprintf(format, args...)}
}

// draft is a policy that is being written.
type draft struct {
	checks, rules strings.Builder
	top           []string // notes about the whole
	notes         []string
	secrets       int
	names         map[string]bool
}

func newDraft() *draft { return &draft{names: map[string]bool{}} }

// note keeps what must be told, and gives it as comment lines.
func (d *draft) note(format string, args ...any) string {
	text := access.Clean(fmt.Sprintf(format, args...), 1024)
	d.notes = append(d.notes, text)
	return text
}

// name makes a name that a check can have, of its own.
func (d *draft) name(wish string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(wish) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteRune(c)
		case b.Len() > 0:
			b.WriteByte('-')
		}
	}
	base := strings.Trim(b.String()[:min(b.Len(), 40)], "-_")
	switch base {
	case "", "any", "all", "allow", "deny":
		base = "check-" + base
	}
	base = strings.Trim(base, "-")
	name := base
	for i := 2; d.names[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	d.names[name] = true
	return name
}

// secret is a reference for a key that stands in the file, with a note where it does.
func (d *draft) secret(what string, line int) (reference, note string) {
	d.secrets++
	reference = fmt.Sprintf("file:/etc/usher/secrets/key%d", d.secrets)
	return reference, d.note("%sput %s into %s; it was not copied", at(line), what, strings.TrimPrefix(reference, "file:"))
}

// render puts the policy together: of what it was made, and who asks.
func (d *draft) render(source, caller string, o Options) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# A policy to start from, made of %s by usher policy import.\n# Read every line that begins with TODO, then: usher policy check FILE\n", source)
	for _, n := range d.top {
		b.WriteString(comment("", n))
	}
	b.WriteString("version: 1\nnodes:\n")
	from := o.From
	if len(from) == 0 {
		from = []string{"127.0.0.1"}
		b.WriteString(comment("  ", d.note("from: the addresses that the server asks from")))
	}
	fmt.Fprintf(&b, "  %s: {caller: %s, from: [%s]}\n", o.Node, caller, quoted(from))
	if d.checks.Len() > 0 {
		b.WriteString("checks:\n" + d.checks.String())
	}
	rules := d.rules.String()
	if !strings.Contains("\n"+rules, "\n  - ") {
		b.WriteString("streams: []\n" + rules) // notes alone
		return []byte(b.String())
	}
	b.WriteString("streams:\n" + rules)
	return []byte(b.String())
}

// comment is a note as a line of the policy.
func comment(indent, note string) string { return indent + "# TODO: " + note + "\n" }

// quote writes a text so that YAML reads it back.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		if c < 0x20 || c == 0x7f || c == 0x85 || c == 0xfeff || c == 0x2028 || c == 0x2029 || c >= 0x80 && c < 0xa0 {
			fmt.Fprintf(&b, `\u%04X`, c)
			continue
		}
		b.WriteRune(c)
	}
	b.WriteByte('"')
	return b.String()
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return strings.Join(out, ", ")
}

// at begins a note about a line, 0 where the file's form has none to speak of.
func at(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("line %d: ", line)
}

// shown is a part of the file as a note may repeat it.
func shown(s string) string { return access.Clean(s, maxNote) }
