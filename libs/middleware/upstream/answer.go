package upstream

import (
	"bytes"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// Bounds of numbers in answers: more than these is taken for these.
const (
	maxSessions = 1_000_000
	maxDuration = 30 * 24 * time.Hour
)

// Refusal is a no with these words for the operator.
func Refusal(text string) middleware.Answer { return middleware.Answer{Text: text} }

// read turns status and headers into an answer (spec astra §5). A yes may still fail
// for its body.
func (c *Client) read(resp *nethttp.Response) (middleware.Answer, error) {
	code := resp.StatusCode
	switch {
	case code == nethttp.StatusOK && c.expect.met(resp.Header):
		return granted(resp.Header), nil
	case code == nethttp.StatusOK:
		return Refusal("the backend's 200 lacks the expected header"), nil
	case code >= 500 || slices.Contains(c.opts.UnavailableCodes, code):
		return middleware.Answer{}, fmt.Errorf("%w: it answered %d", middleware.ErrUnavailable, code)
	case code < 200:
		return middleware.Answer{}, fmt.Errorf("%w: its answer is broken", middleware.ErrUnavailable)
	}
	a := Refusal(fmt.Sprintf("the backend answered %d", code))
	a.Location = c.location(resp)
	return a, nil
}

// expected refuses a yes whose body lacks the expected text.
func (c *Client) expected(a middleware.Answer, body []byte) middleware.Answer {
	if a.Allowed && !bytes.Contains(body, []byte(c.opts.ExpectBody)) {
		return Refusal("the backend's 200 lacks the expected text")
	}
	return a
}

// granted reads the headers of a yes.
func granted(h nethttp.Header) middleware.Answer {
	name := h.Get("X-Session-Name")
	user := h.Get("X-UserId")
	if user == "" {
		user = name
	}
	if access.Clean(user, access.MaxName) != user {
		// Cut or cleaned, it could become another viewer's account.
		return Refusal("the backend named a user that is too long or not clean text")
	}
	return middleware.Answer{
		Allowed:     true,
		Text:        "the backend answered 200",
		User:        user,
		SessionName: access.Clean(name, access.MaxName),
		Sessions:    sessions(h),
		Duration:    time.Duration(number(h.Get("X-AuthDuration"), int(maxDuration/time.Second))) * time.Second,
	}
}

// sessions reads the backend's own limit. Ministra sends X-Unique beside a number:
// the number wins, X-Unique alone is one (spec astra §9 U17).
func sessions(h nethttp.Header) int {
	if n := number(h.Get("X-Max-Sessions"), maxSessions); n > 0 {
		return n
	}
	if strings.EqualFold(strings.TrimSpace(h.Get("X-Unique")), "true") {
		return 1
	}
	return 0
}

// number reads a positive number of at most limit; anything else is 0.
func number(s string, limit int) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		return limit
	}
	if err != nil || n < 0 {
		return 0
	}
	return min(n, limit)
}

// location is where a refusal sends the viewer: X-Location, else the Location of
// a 3xx if the options say so. Only absolute http and https addresses count.
func (c *Client) location(resp *nethttp.Response) string {
	raw := resp.Header.Get("X-Location")
	if raw == "" && c.opts.Redirect && resp.StatusCode >= 300 && resp.StatusCode < 400 {
		raw = resp.Header.Get("Location")
	}
	if raw == "" || access.Clean(raw, access.MaxPath) != raw {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return ""
	}
	hosts := c.opts.RedirectHosts
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, u.Hostname()) }) {
		return ""
	}
	return raw
}

// expectation is a header that a yes must carry.
type expectation struct{ name, value string }

func newExpectation(s string) expectation {
	name, value, _ := strings.Cut(s, ":")
	return expectation{name: strings.TrimSpace(name), value: strings.TrimSpace(value)}
}

// met says whether the header is there, with the value if one is asked for.
func (e expectation) met(h nethttp.Header) bool {
	if e.name == "" {
		return true
	}
	values := h.Values(e.name)
	if e.value == "" {
		return len(values) > 0
	}
	return slices.Contains(values, e.value)
}
