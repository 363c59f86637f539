package securelink

import (
	"errors"
	"fmt"
	"strings"
)

// nameLetters are the letters of a variable's name, as nginx reads them.
const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

const (
	maxTemplate = 512
	argPrefix   = "arg_"
)

type partKind uint8

const (
	partText partKind = iota
	partSecret
	partExpires
	partPath  // what is signed of the path: behind hash and time, if these stand in it
	partWhole // the whole path
	partIP
	partHost
	partAgent
	partStream
	partArgument
)

// names are the words of a template: ours, and nginx's variables of the same meaning.
var names = map[string]partKind{
	"secret":  partSecret,
	"expires": partExpires, "secure_link_expires": partExpires,
	"path": partPath,
	"uri":  partWhole, "document_uri": partWhole,
	"ip": partIP, "remote_addr": partIP,
	"host":       partHost,
	"user_agent": partAgent, "http_user_agent": partAgent,
	"stream": partStream,
}

// part is a piece of a template: text as it stands, or a variable.
type part struct {
	kind partKind
	text string // of partText; the name of partArgument, in lower case
}

// template is what is hashed.
type template []part

// parseTemplate reads "{name}", "$name" and "${name}"; all else stands for itself.
func parseTemplate(s string) (template, error) {
	if s == "" || len(s) > maxTemplate {
		return nil, fmt.Errorf("want 1 to %d characters", maxTemplate)
	}
	var t template
	for s != "" {
		at := strings.IndexAny(s, "${}")
		if at != 0 {
			if at < 0 {
				at = len(s)
			}
			t = append(t, part{partText, s[:at]})
			s = s[at:]
			continue
		}
		name, rest, err := variable(s)
		if err != nil {
			return nil, err
		}
		p, err := known(name)
		if err != nil {
			return nil, err
		}
		t = append(t, p)
		s = rest
	}
	return t, nil
}

// variable splits the variable that s begins with from what follows it.
func variable(s string) (name, rest string, err error) {
	body := strings.TrimPrefix(s, "$")
	if strings.HasPrefix(body, "{") {
		var closed bool
		name, rest, closed = strings.Cut(body[1:], "}")
		if !closed {
			return "", "", errors.New("a { is not closed")
		}
		return name, rest, nil
	}
	if body == s {
		return "", "", errors.New("a } stands alone")
	}
	end := len(body) - len(strings.TrimLeft(body, nameLetters))
	if end == 0 {
		return "", "", errors.New("a $ stands alone")
	}
	return body[:end], body[end:], nil
}

func known(name string) (part, error) {
	if kind, ok := names[name]; ok {
		return part{kind: kind}, nil
	}
	if arg, ok := strings.CutPrefix(name, argPrefix); ok && isArgument(arg) {
		return part{partArgument, strings.ToLower(arg)}, nil
	}
	return part{}, fmt.Errorf("%q is not known; known are expires, path, uri, ip, host, user_agent, stream, arg_NAME and secret, and nginx's $secure_link_expires, $uri, $remote_addr, $host, $http_user_agent and $arg_NAME", name)
}

// has says whether the template holds such a part; argument names the argument.
func (t template) has(kind partKind, argument string) bool {
	for _, p := range t {
		if p.kind == kind && (kind != partArgument || p.text == strings.ToLower(argument)) {
			return true
		}
	}
	return false
}

// values are what a question puts into a template.
type values struct {
	secret, expires, path, whole string
	ip, host, agent, stream      string
	query                        string // for arguments
}

// fill appends the text that is hashed. It is not ok where a value holds what no honest link
// does: control characters, by which a hash could be extended (README.md, "Limits of the
// scheme"), or an argument that stands there twice.
func (t template) fill(b []byte, v *values) ([]byte, bool) {
	for _, p := range t {
		text := p.text
		switch p.kind {
		case partText:
		case partSecret:
			b = append(b, v.secret...)
			continue
		case partExpires:
			text = v.expires
		case partPath:
			text = v.path
		case partWhole:
			text = v.whole
		case partIP:
			text = v.ip
		case partHost:
			text = v.host
		case partAgent:
			text = v.agent
		case partStream:
			text = v.stream
		case partArgument:
			a := argument(v.query, p.text)
			if a.twice {
				return nil, false
			}
			text = a.value
		}
		if p.kind != partText && !plain(text) {
			return nil, false
		}
		b = append(b, text...)
	}
	return b, true
}

// plain says whether s holds no control characters.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}
