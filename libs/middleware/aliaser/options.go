package aliaser

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"usher.internal/libs/middleware"
)

const (
	// maxNames bounds what is remembered; those asked for least go first.
	maxNames = 65536
	// maxConcurrent is the most questions under way at once.
	maxConcurrent = 128
	// failures in a row stop the asking for open.
	failures = 5
	open     = 5 * time.Second
)

// Options are the policy's aliases.http.
type Options struct {
	// URL is asked with name= added to its query.
	URL string
	// Timeout of one question.
	Timeout time.Duration
	// Cache is how long an answer counts without asking again.
	Cache time.Duration
}

// parseURL reads the address of an aliaser. The error never repeats it: its query may hold a key.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("url cannot be read")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("want http://host/path or https://host/path")
	case u.User != nil:
		return nil, errors.New("url must not hold a user and a password")
	case u.Fragment != "":
		return nil, errors.New("url must not hold a fragment (#)")
	case strings.ContainsAny(u.RawQuery, " \t\r\n"):
		return nil, errors.New("url: its query holds spaces")
	}
	return u, nil
}

func (o *Options) limits() middleware.Limits {
	return middleware.Limits{Timeout: o.Timeout, Concurrent: maxConcurrent, Failures: failures, Open: open}
}
