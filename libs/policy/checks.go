package policy

import (
	"slices"
	"strings"
	"time"

	"usher.internal/libs/config"
)

// reserved are the words of auth, which no check can be called.
var reserved = []string{string(AuthAllow), string(AuthDeny), string(AuthAny), string(AuthAll)}

func (c *compiler) checks(files map[string]*config.Raw) {
	c.snapshot.Checks = make(map[string]*Check, len(files))
	for _, name := range c.doc.Keys("checks") {
		raw := files[name]
		if raw == nil {
			continue
		}
		at := path{"checks", name}
		c.name(at, name)
		if slices.Contains(reserved, name) {
			c.errorf(at, "", "a check cannot be called %s, auth has another meaning for it", name)
		}
		if check := c.check(at, name, raw); check != nil {
			c.snapshot.Checks[name] = check
		}
	}
}

// check compiles one check; nil if its type is not known.
func (c *compiler) check(at path, name string, raw *config.Raw) *Check {
	kind, ok := c.kind(at.sub("type"), raw.Text("type"))
	if !ok {
		return nil
	}
	common, options := fileCheck{Realm: DefaultRealm}, kind.NewOptions()
	var upstream fileUpstream
	into := []any{&common, options}
	if kind.Upstream {
		into = []any{&common, &upstream, options}
	}
	problems := raw.Decode(into...)
	c.malformed = append(c.malformed, problems...)
	c.name(at.sub("realm"), common.Realm)
	if common.Realm == RealmClients || common.Realm == RealmProbes {
		c.errorf(at.sub("realm"), "", "%s is the realm of clients, and no check's", common.Realm)
	}
	check := &Check{
		Name: name, Type: kind.Type, Realm: common.Realm,
		Upstream:  kind.Upstream,
		InAddress: kind.InAddress || kind.ReadsAddress != nil && kind.ReadsAddress(options),
		NamesUser: kind.NamesUser == nil || kind.NamesUser(options),
		Timeout:   timeoutOf(options),
		Options:   options,
	}
	if kind.PlaylistTrust != nil {
		var trust []config.Prefix
		check.PublicPlaylists, trust = kind.PlaylistTrust(options)
		for _, p := range trust {
			check.PlaylistTrust = append(check.PlaylistTrust, p.Prefix)
		}
	}
	if common.OnUnavailable != "" {
		check.OnUnavailable = c.failMode(at.sub("on_unavailable"), common.OnUnavailable, "")
	}
	check.For = c.forWhom(at.sub("for"), common.For)
	check.From = choice(c, at.sub("from"), upstream.From, "", FromMiddleware, FromPolicy)
	check.OddNumber = kind.OddNumber
	check.Grant = c.duration(at.sub("grant"), upstream.Grant, kind.Grant, 0, longGrant)
	check.GrantMax = c.duration(at.sub("grant_max"), upstream.GrantMax, 0, time.Second, longGrant)
	return check
}

func (c *compiler) kind(at path, name string) (Kind, bool) {
	names := make([]string, len(c.kinds))
	for i, k := range c.kinds {
		if k.Type == name {
			return k, true
		}
		names[i] = k.Type
	}
	if name == "" {
		c.errorf(at, "", "is missing; want %s", oneOf(names))
		return Kind{}, false
	}
	c.errorf(at, config.Nearest(name, names), "%q is not known to this version; known are %s", name, strings.Join(names, ", "))
	return Kind{}, false
}
