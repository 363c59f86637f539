package upstreamtest

import (
	"strings"
	"testing"

	"usher.internal/libs/access"
)

// FuzzURL holds for whatever an operator types: it is refused, or the question goes to the
// same scheme and host, below a path that begins with a slash.
func (s *Suite[O, D]) FuzzURL(f *testing.F) {
	for _, url := range []string{
		"", "http://mw/stalker_portal", "http://mw/stalker_portal/", "http://op.ministra.pro", "https://[::1]:8443/a%2Fb/?key=K", "http://h/x.php",
		"http://h/auth/x", "http://h/token/check", "http://h//..//a", "http://h?x", "http://u:p@h/", "http://h/#f", "//h/", "http://h/%zz", "HTTP://H/",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		o := s.options(url)
		d, err := s.New(o)
		if err != nil {
			return
		}
		q, refused := d.Question(&access.Request{Query: "token=T", Token: "T", Stream: "a"})
		if refused != "" {
			t.Fatalf("refused: %s", refused)
		}
		if path := q.URL.EscapedPath(); path != "" && !strings.HasPrefix(path, "/") {
			t.Errorf("%q is asked at path %q", url, path)
		}
		scheme, rest, _ := strings.Cut(url, "://")
		if !strings.EqualFold(q.URL.Scheme, scheme) || q.URL.Host == "" {
			t.Errorf("%q is asked at %q", url, q.URL.Host)
		}
		if host, _, _ := strings.Cut(rest, "/"); !strings.Contains(host, "%") && !strings.HasPrefix(host, q.URL.Host) {
			t.Errorf("%q is asked at %q", url, q.URL.Host)
		}
	})
}
