package upstream

import (
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
)

// Options are the keys that every kind of middleware has. A kind embeds them in its
// own, inline.
type Options struct {
	// URL of the upstream. A query of its own comes before everything else that is sent.
	URL string `yaml:"url"`
	// Timeout of one question; 500ms by default.
	Timeout config.Duration `yaml:"timeout"`
	// ExpectHeader is "Name" or "Name: value" that a 200 must carry to be a yes, so
	// that the page of a hotel's or provider's portal never is one. "" wants none.
	ExpectHeader string `yaml:"expect_header"`
	// ExpectBody is a text that a 200 must hold to be a yes, within the first 64 KiB.
	ExpectBody string `yaml:"expect_body"`
	// UnavailableCodes are the 4xx that mean "cannot tell" and not "no"; 408, 425
	// and 429 by default.
	UnavailableCodes []int `yaml:"unavailable_codes"`
	// Redirect sends a refused viewer to the Location of a 3xx answer.
	Redirect bool `yaml:"redirect"`
	// RedirectHosts, if not empty, are the only hosts that a viewer may be sent to by
	// X-Location or Location.
	RedirectHosts []string `yaml:"redirect_hosts"`
	// Traceparent sends W3C trace context along, which no streaming server would.
	Traceparent bool `yaml:"traceparent"`
	// MaxConcurrent is the most questions under way at once; 256 by default.
	MaxConcurrent int `yaml:"max_concurrent"`
	// Breaker stops asking after Failures unanswered questions in a row (5) and
	// lets one probe after Open (5s).
	Breaker Breaker `yaml:"breaker"`
}

// Breaker are the settings of the circuit breaker.
type Breaker struct {
	Failures int             `yaml:"failures"`
	Open     config.Duration `yaml:"open"`
}

// Defaults are the common options where the operator says nothing.
func Defaults() Options {
	return Options{
		Timeout:          config.Duration(500 * time.Millisecond),
		UnavailableCodes: []int{nethttp.StatusRequestTimeout, nethttp.StatusTooEarly, nethttp.StatusTooManyRequests},
		MaxConcurrent:    256,
		Breaker:          Breaker{Failures: 5, Open: config.Duration(5 * time.Second)},
	}
}

// Common gives the options themselves: whoever embeds them has it too.
func (o *Options) Common() *Options { return o }

// Limits are what the options say for the guard.
func (o *Options) Limits() middleware.Limits {
	return middleware.Limits{
		Timeout:    o.Timeout.Duration(),
		Concurrent: o.MaxConcurrent,
		Failures:   o.Breaker.Failures,
		Open:       o.Breaker.Open.Duration(),
	}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	if _, err := ParseURL(o.URL); err != nil {
		errs = append(errs, err)
	}
	if o.Timeout <= 0 {
		errs = append(errs, errors.New("timeout must be positive"))
	}
	if o.MaxConcurrent <= 0 {
		errs = append(errs, errors.New("max_concurrent must be positive"))
	}
	if o.Breaker.Failures <= 0 || o.Breaker.Open <= 0 {
		errs = append(errs, errors.New("breaker: failures and open must be positive"))
	}
	if name, _, _ := strings.Cut(o.ExpectHeader, ":"); o.ExpectHeader != "" && !httpguts.ValidHeaderFieldName(strings.TrimSpace(name)) {
		errs = append(errs, errors.New(`expect_header: want "Name" or "Name: value"`))
	}
	for _, code := range o.UnavailableCodes {
		if code < 400 || code > 499 {
			errs = append(errs, fmt.Errorf("unavailable_codes: %d is not a 4xx", code))
		}
	}
	return errors.Join(errs...)
}

// ParseURL reads an upstream's address. The error never repeats it: its query may
// hold a key.
func ParseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil, errors.New("url is missing")
	case err != nil:
		return nil, errors.New("url cannot be read")
	case !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Hostname() == "":
		return nil, errors.New("url: want http://host/path or https://host/path")
	case u.User != nil:
		return nil, errors.New("url must not hold a user and a password")
	case u.Fragment != "":
		return nil, errors.New("url must not hold a fragment (#)")
	case !Clean(u.RawQuery):
		return nil, errors.New("url: its query holds spaces or control characters")
	}
	return u, nil
}

// Below is the address of a path below a base, which may end in a slash or be a host
// alone. The path's own last slash stays.
func Below(base *url.URL, path string) *url.URL {
	u := *base
	if u.Path == "" {
		u.Path = "/" // else the joined path would begin without a slash
	}
	return u.JoinPath(path)
}
