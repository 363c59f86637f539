// Package config reads configuration files strictly: unknown keys, duplicate
// keys, wrong types and missing units fail, all of them at once, each with line and
// column and, where a name is nearly right, with the right one.
package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file, or worth a warning.
type Problem struct {
	File string `json:"file"`
	// Line and Column count from 1; they are 0 where the problem has no place.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path of the value, such as streams[0].limit; "" for the whole file.
	Path string `json:"path,omitempty"`
	// Message says what is wrong and what would be right.
	Message string `json:"message"`
	// Suggestion is the name that was probably meant, "" if none is near.
	Suggestion string `json:"suggestion,omitempty"`
	// Warning marks what does not keep the file from being used.
	Warning bool `json:"warning,omitempty"`
}

// String is the problem in one line, as compilers print theirs.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", p.Suggestion)
	}
	return b.String()
}

// Problems are all that is wrong with a file, in the file's order.
type Problems []Problem

// Error implements error: one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err is nil if there are no problems: never return Problems(nil) as an error.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Sort puts problems into the file's order.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
