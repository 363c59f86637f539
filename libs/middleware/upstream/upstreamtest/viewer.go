package upstreamtest

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"usher.internal/libs/access"
)

// Smuggles are queries by which a viewer could try to replace NAME with another
// value, whatever reads them.
var Smuggles = []string{
	"NAME=evil", "token=T&NAME=evil", "NAME=evil&token=T", "NAME=evil&NAME=evil&token=T", "token=T&NAME", "token=T;NAME=evil",
	"token=T&NAME[]=evil", "token=T&NAME[x]=evil", "token=T&NAME%5B%5D=evil", "token=T&%20NAME=evil", "token=T&+NAME=evil",
	"token=T&NAME%00=evil", "token=T&NAME%20=evil", "&&NAME=evil&&token=T&&", "token=T&=NAME=evil", "token=T&a=b;NAME=evil;c=d",
}

// Viewer holds the kind against viewers: no parameter of theirs replaces one of these
// names, which the kind sends by itself with the given values, nor one of the operator's.
func (s *Suite[O, D]) Viewer(t *testing.T, ours map[string]string) {
	t.Helper()
	for name, value := range withKey(ours) {
		for _, spelt := range spellings(name) {
			for _, smuggle := range Smuggles {
				s.smuggle(t, strings.ReplaceAll(smuggle, "NAME", spelt), name, value)
			}
		}
	}
}

// Fuzz looks for a query by which a viewer replaces one of the values.
func (s *Suite[O, D]) Fuzz(f *testing.F, ours map[string]string) {
	for name := range withKey(ours) {
		for _, smuggle := range Smuggles {
			f.Add(strings.ReplaceAll(smuggle, "NAME", name))
		}
	}
	f.Fuzz(func(t *testing.T, query string) {
		for name, value := range withKey(ours) {
			s.smuggle(t, query, name, value)
		}
	})
}

// withKey adds what stands in the operator's own address.
func withKey(ours map[string]string) map[string]string {
	all := map[string]string{"key": "OPERATORSKEY"}
	for name, value := range ours {
		all[name] = value
	}
	return all
}

// spellings of a name that a server decodes to it, or may take for it.
func spellings(name string) []string {
	all, hex := "", "0123456789ABCDEF"
	for i := range len(name) {
		all += "%" + string(hex[name[i]>>4]) + string(hex[name[i]&15])
	}
	return []string{name, strings.ToUpper(name), all, strings.ToLower(all), all[:3] + name[1:], name[:len(name)-1] + all[len(all)-3:]}
}

// smuggle puts the question and reads it as loosely as any server might.
func (s *Suite[O, D]) smuggle(t *testing.T, query, name, value string) {
	t.Helper()
	d, err := s.New(s.options("http://backend.test/check?key=OPERATORSKEY"))
	if err != nil {
		t.Fatal(err)
	}
	q, refused := d.Question(&access.Request{
		Query: query, Token: "T", Stream: "a001", Channel: "a001", IP: netip.MustParseAddr("10.0.0.5"), Key: access.Key{0xab, 15: 0xcd},
	})
	if refused != "" {
		return
	}
	got := readLoosely(q.URL.RawQuery, name)
	if len(got) == 0 && strings.HasPrefix(q.Body, "{") {
		return // it goes in the body, where a viewer writes no names
	}
	if len(got) != 1 || got[0] != value {
		t.Errorf("%q became %q, where %s can be read as %q, want %q alone", query, q.URL.RawQuery, name, got, value)
	}
}

// readLoosely is every value that some server would read for the name: both
// separators, names in any case, decoded, trimmed, cut at NUL or a bracket.
func readLoosely(query, name string) (values []string) {
	for pair := range strings.SplitSeq(strings.ReplaceAll(query, ";", "&"), "&") {
		raw, value, _ := strings.Cut(pair, "=")
		read, err := url.QueryUnescape(raw)
		if err != nil {
			read = raw
		}
		if i := strings.IndexAny(read, "[\x00"); i > 0 {
			read = read[:i]
		}
		if strings.EqualFold(strings.Trim(read, " \t\r\n\v\f"), name) {
			if decoded, err := url.QueryUnescape(value); err == nil {
				value = decoded
			}
			values = append(values, value)
		}
	}
	return values
}
