// Package match reads names out of paths and matches names against patterns:
// Glob for streams, URL for the paths of forward-auth callers, and DefaultStream for
// callers without a pattern. All input may be hostile; matching takes time
// linear in the input and never backtracks.
package match

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// MaxPattern is the longest pattern in bytes.
const MaxPattern = 512

// Glob is a pattern for stream names. `*` stands for any characters within a path
// element, also none; `**` for any characters, across elements. An element
// that is just `**` may also stand for no element at all: "**/news" is news at any
// depth. All else is literal and case counts. It is safe for concurrent use.
type Glob struct {
	pattern string
	// prefix and suffix are what every match begins and ends with; a pattern
	// without a star is all prefix and has no ops.
	prefix, suffix string
	ops            []op
}

// op is one state of the automaton that runs between prefix and suffix.
type op struct {
	kind kind
	char byte // of a literal
}

type kind uint8

const (
	literal kind = iota
	star         // loops on everything but a slash
	stars        // loops on everything
	fork         // goes on, or jumps over the `**/` that follows
)

// ParseGlob compiles a pattern. The error says what is wrong with it.
func ParseGlob(pattern string) (*Glob, error) {
	if err := checkPattern(pattern); err != nil {
		return nil, err
	}
	g := &Glob{pattern: pattern}
	first := strings.IndexByte(pattern, '*')
	if first < 0 {
		g.prefix = pattern
		return g, nil
	}
	// "**/" jumps over its slash, so the slash belongs to the automaton.
	last := strings.LastIndexByte(pattern, '*') + 1
	if strings.HasPrefix(pattern[last:], "/") {
		last++
	}
	g.prefix, g.suffix = pattern[:first], pattern[last:]
	g.ops = compile(pattern, first, last)
	return g, nil
}

func checkPattern(p string) error {
	switch {
	case p == "":
		return errors.New("the pattern is empty; ** matches everything")
	case len(p) > MaxPattern:
		return fmt.Errorf("the pattern has %d bytes, at most %d are allowed", len(p), MaxPattern)
	case !plain(p):
		return errors.New("the pattern holds control characters or is not UTF-8")
	case strings.Contains(p, "***"):
		return errors.New("*** means nothing: * matches within a path element, ** across them")
	}
	return nil
}

// plain says whether s is UTF-8 without control characters.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

func compile(p string, from, to int) []op {
	var ops []op
	for i := from; i < to; i++ {
		switch {
		case p[i] != '*':
			ops = append(ops, op{literal, p[i]})
		case !strings.HasPrefix(p[i:], "**"):
			ops = append(ops, op{kind: star})
		default:
			if strings.HasPrefix(p[i:], "**/") && (i == 0 || p[i-1] == '/') {
				ops = append(ops, op{kind: fork})
			}
			ops = append(ops, op{kind: stars})
			i++
		}
	}
	return ops
}

// String is the pattern as it was written.
func (g *Glob) String() string { return g.pattern }

// Literal says whether the pattern has no star: it matches its own text only.
func (g *Glob) Literal() bool { return len(g.ops) == 0 }

// Affixes are the text that everything the pattern matches begins with and
// ends with; they do not overlap. An index of patterns is made from them.
func (g *Glob) Affixes() (prefix, suffix string) { return g.prefix, g.suffix }

// Match says whether the pattern matches the whole of s.
func (g *Glob) Match(s string) bool {
	if g.Literal() {
		return s == g.pattern
	}
	if len(s) < len(g.prefix)+len(g.suffix) ||
		!strings.HasPrefix(s, g.prefix) || !strings.HasSuffix(s, g.suffix) {
		return false
	}
	middle := s[len(g.prefix) : len(s)-len(g.suffix)]
	if len(g.ops) == 1 {
		return g.ops[0].kind == stars || strings.IndexByte(middle, '/') < 0
	}
	return run(g.ops, middle)
}

// states is a set of positions in ops; len(ops) itself is the accepting one. No
// token makes more ops than it has characters.
type states [MaxPattern/64 + 1]uint64

func (s *states) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// enter adds a state and what is reached from it without a character.
func (s *states) enter(ops []op, i int) {
	for !s.has(i) {
		s[i/64] |= 1 << (i % 64)
		if i == len(ops) || ops[i].kind == literal {
			return
		}
		if ops[i].kind == fork {
			s.enter(ops, i+3)
		}
		i++
	}
}

// run simulates the automaton: all states it could be in, a character at a time.
func run(ops []op, s string) bool {
	var now states
	words := len(ops)/64 + 1
	now.enter(ops, 0)
	for i := 0; i < len(s); i++ {
		var next states
		alive := false
		for w := range words {
			for set := now[w]; set != 0; set &= set - 1 {
				at := w*64 + bits.TrailingZeros64(set)
				if to, ok := step(ops, at, s[i]); ok {
					next.enter(ops, to)
					alive = true
				}
			}
		}
		if !alive {
			return false
		}
		now = next
	}
	return now.has(len(ops))
}

// step is where the character leads from a state.
func step(ops []op, at int, c byte) (int, bool) {
	if at == len(ops) {
		return 0, false
	}
	switch o := ops[at]; o.kind {
	case literal:
		return at + 1, o.char == c
	case star:
		return at, c != '/'
	case stars:
		return at, true
	default: // fork has been left by enter
		return 0, false
	}
}
