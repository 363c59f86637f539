package ministra

import (
	"errors"
	"testing"

	"usher.internal/libs/middleware"
)

// FuzzResults holds for whatever stands at the portal's address.
func FuzzResults(f *testing.F) {
	for _, s := range []string{
		`{"status":"OK","results":"1234"}`, `{"status":"OK","results":false}`, `{"results":17}`, `{"results":1e999}`, `{"results":-0.0}`,
		`{"results":{"a":1}}`, `null`, `[]`, `{"results":"\u0000"}`, "<html>", "\xef\xbb\xbf{}", `{"results":true}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		user, err := results(body)
		if err != nil && (user != "" || !errors.Is(err, middleware.ErrUnavailable)) {
			t.Errorf("results(%q) = %q, %v", body, user, err)
		}
	})
}
