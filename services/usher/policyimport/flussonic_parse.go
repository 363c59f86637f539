package policyimport

import (
	"strings"
	"unicode/utf8"
)

// Bounds of what a flussonic.conf may hold.
const (
	maxDepth      = 16
	maxDirectives = 200_000
)

// directive is one statement of a flussonic.conf: words, ended by ; or by a block.
type directive struct {
	line  int
	words []string
	block []*directive
}

// arg is a word after the first, "" if there is none.
func (d *directive) arg(i int) string {
	if i+1 < len(d.words) {
		return d.words[i+1]
	}
	return ""
}

// parser reads words, quotes, comments and nested braces.
type parser struct {
	text  string
	at    int
	line  int
	count int
}

// parseFlussonic reads a whole file.
func parseFlussonic(data []byte) ([]*directive, error) {
	switch {
	case len(data) > maxFile:
		return nil, badf(1, "the file has more than %d bytes", maxFile)
	case !utf8.Valid(data):
		return nil, badf(1, "the file is not UTF-8")
	}
	p := &parser{text: strings.TrimPrefix(string(data), "\ufeff"), line: 1}
	return p.directives(0, 0)
}

// directives reads up to the block's end, or the file's.
func (p *parser) directives(depth, opened int) ([]*directive, error) {
	if depth > maxDepth {
		return nil, badf(p.line, "blocks are nested deeper than %d", maxDepth)
	}
	var list []*directive
	for {
		p.skip()
		switch {
		case p.at == len(p.text) && depth > 0:
			return nil, badf(opened, "the block that begins here is not closed")
		case p.at == len(p.text):
			return list, nil
		case p.text[p.at] == '}' && depth == 0:
			return nil, badf(p.line, "} closes no block")
		case p.text[p.at] == '}':
			p.at++
			return list, nil
		case p.text[p.at] == ';':
			p.at++ // an empty statement, as after a block
			continue
		}
		if p.count++; p.count > maxDirectives {
			return nil, badf(p.line, "there are more than %d statements", maxDirectives)
		}
		d, err := p.directive(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
}

// directive reads one statement.
func (p *parser) directive(depth int) (*directive, error) {
	d := &directive{line: p.line}
	for {
		p.skip()
		if p.at == len(p.text) {
			return nil, badf(d.line, "the statement that begins here is not ended by ; or a block")
		}
		switch p.text[p.at] {
		case ';':
			p.at++
			return d, nil
		case '}':
			return nil, badf(d.line, "the statement that begins here is not ended by ; before the block's }")
		case '{':
			if len(d.words) == 0 {
				return nil, badf(p.line, "a block has no name")
			}
			p.at++
			var err error
			d.block, err = p.directives(depth+1, d.line)
			return d, err
		}
		word, err := p.word()
		if err != nil {
			return nil, err
		}
		d.words = append(d.words, word)
	}
}

// skip goes over space and comments.
func (p *parser) skip() {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '\n':
			p.line++
		case c == '#':
			end := strings.IndexByte(p.text[p.at:], '\n')
			if end < 0 {
				end = len(p.text) - p.at
			}
			p.at += end
			continue
		case c != ' ' && c != '\t' && c != '\r':
			return
		}
		p.at++
	}
}

// word reads one word, with what is quoted in it.
func (p *parser) word() (string, error) {
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"' || c == '\'':
			if err := p.quoted(&b, c); err != nil {
				return "", err
			}
			continue
		case strings.IndexByte(" \t\r\n;{}", c) >= 0:
			return b.String(), nil
		case c < 0x20 || c == 0x7f:
			return "", badf(p.line, "a word holds control characters")
		}
		b.WriteByte(c)
		p.at++
	}
	return b.String(), nil
}

// quoted reads up to the closing quote; a backslash lets the next character stand for itself.
func (p *parser) quoted(b *strings.Builder, quote byte) error {
	opened := p.line
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == quote:
			p.at++
			return nil
		case c == '\\' && p.at+1 < len(p.text) && p.text[p.at+1] >= 0x20:
			p.at++
			b.WriteByte(p.text[p.at])
		case c == '\n':
			return badf(opened, "a quote is not closed in its line")
		case c < 0x20 && c != '\t' || c == 0x7f:
			return badf(p.line, "a word holds control characters")
		default:
			b.WriteByte(c)
		}
	}
	return badf(opened, "a quote is not closed")
}
