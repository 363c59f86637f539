package policy

import (
	"net/url"
	"strings"
	"time"

	"usher.internal/libs/config"
)

// Control is how the edge beside a node reaches its control API. It is immutable.
type Control struct {
	// URL of the server, without the API's own path and without a slash at its end.
	URL, User string
	// Password is read on the edge's machine alone; nothing here resolves it.
	Password config.Secret
	// Poll is how often the list of sessions is asked for, Timeout how long one call may take.
	Poll, Timeout time.Duration
	// Kick says that sessions may be ended there.
	Kick bool
}

// What a control API is asked unless the node says otherwise, and how often at most and at least.
const (
	defaultPoll           = 15 * time.Second
	defaultControlTimeout = 5 * time.Second
	shortPoll, longPoll   = 2 * time.Second, 10 * time.Minute
	longControlTimeout    = time.Minute
	maxControlUser        = 128
)

// control compiles a node's control key, nil if it has none.
func (c *compiler) control(at path, f *fileControl, kind caller) *Control {
	if f == nil {
		return nil
	}
	if !kind.control {
		c.errorf(at, "", "is for astra and flussonic; %s has no list of sessions", kind.name)
		return nil
	}
	o := &Control{
		User: f.User, Password: f.Password,
		Poll:    c.duration(at.sub("poll"), f.Poll, defaultPoll, shortPoll, longPoll),
		Timeout: c.duration(at.sub("timeout"), f.Timeout, defaultControlTimeout, shortest, longControlTimeout),
		Kick:    true,
	}
	if f.Kick != nil {
		o.Kick = choice(c, at.sub("kick"), *f.Kick, "on", "on", "off") == "on"
	}
	o.URL = c.controlURL(at.sub("url"), f.URL)
	if (f.User == "") != f.Password.IsZero() {
		c.errorf(at, "", "user and password go together; without both the server is asked without signing in")
	}
	if len(f.User) > maxControlUser || strings.Contains(f.User, ":") {
		c.errorf(at.sub("user"), "", "has a colon or more than %d bytes, which Basic authorization cannot carry", maxControlUser)
	}
	return o
}

// controlURL reads the server's address. Messages do not repeat it: somebody may have written a
// password into it.
func (c *compiler) controlURL(at path, text string) string {
	if text == "" {
		c.errorf(at, "", `is missing; want where the server answers, such as "http://10.2.0.5:80"`)
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "":
		c.errorf(at, "", `cannot be read; want where the server answers, such as "http://10.2.0.5:80"`)
	case u.User != nil:
		c.errorf(at, "", "has a user in it; write user and password as keys of their own, the password as file:… or env:…")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		c.errorf(at, "", "has a query or fragment, for which an API has no use")
	default:
		return strings.TrimRight(text, "/")
	}
	return ""
}
