package upstream

import (
	nethttp "net/http"
	"net/url"
	"testing"

	"usher.internal/libs/access"
)

// FuzzAnswer holds for any answer that net/http would let through: no panic, names
// that can be stored as they are, numbers within bounds, addresses of the web only.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "u42", "Alice", "2", "36000", "true", "http://pay/")
	f.Add(403, "", "", "-1", "99999999999999999999", "1", "javascript:alert(1)")
	f.Add(302, "\xff", "a\x00b", "0x10", "1e9", "TRUE", "//evil/")
	f.Add(999, "u\u202e", "", " 7 ", "+5", "", "https://user@host:80/\r\nX: y")
	o := Defaults()
	o.Redirect = true
	c := &Client{opts: &o}
	f.Fuzz(func(t *testing.T, status int, user, name, sessions, duration, unique, location string) {
		h := nethttp.Header{}
		for k, v := range map[string]string{
			"X-UserId": user, "X-Session-Name": name, "X-Max-Sessions": sessions,
			"X-AuthDuration": duration, "X-Unique": unique, "X-Location": location, "Location": location,
		} {
			h.Set(k, v)
		}
		a, err := c.read(&nethttp.Response{StatusCode: status, Header: h})
		if err == nil && a.Allowed && status != nethttp.StatusOK {
			t.Errorf("a %d was a yes", status)
		}
		if access.Clean(a.User, access.MaxName) != a.User || access.Clean(a.SessionName, access.MaxName) != a.SessionName {
			t.Errorf("names %q, %q cannot be stored", a.User, a.SessionName)
		}
		if a.Sessions < 0 || a.Sessions > maxSessions || a.Duration < 0 || a.Duration > maxDuration {
			t.Errorf("numbers %d, %v are out of bounds", a.Sessions, a.Duration)
		}
		if a.Location == "" {
			return
		}
		if u, err := url.Parse(a.Location); err != nil || a.Allowed || (u.Scheme != "http" && u.Scheme != "https") {
			t.Errorf("location %q, %v", a.Location, err)
		}
	})
}
