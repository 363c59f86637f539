package policy

import (
	"regexp"
	"strings"

	"usher.internal/libs/access"
)

// maxSessions bounds a limit, so that it fits every column and message.
const maxSessions = 1_000_000

func (c *compiler) limit(at path, f *fileLimits) *Limit {
	if f == nil {
		return nil
	}
	one := f.one
	switch {
	case len(f.list) == 1:
		one, at = f.list[0], at.sub(0)
	case f.list != nil:
		c.errorf(at, "", "has %d limits; this version takes one", len(f.list))
		return nil
	}
	l := &Limit{By: "user", Shadow: c.enforce(at.sub("enforce"), one.Enforce)}
	if one.Sessions != nil {
		if l.Sessions = *one.Sessions; l.Sessions < 1 || l.Sessions > maxSessions {
			c.errorf(at.sub("sessions"), "", "is %d; want 1 to %d, leave it out where only the check's number counts, and use auth: deny to let nobody in",
				l.Sessions, maxSessions)
		}
	}
	if one.Max != nil {
		if l.Max = *one.Max; l.Max < 1 || l.Max > maxSessions {
			c.errorf(at.sub("max"), "", "is %d; want 1 to %d, or leave it out for no ceiling", l.Max, maxSessions)
		}
	}
	switch one.By {
	case "", "user":
	case "device", "token", "ip":
		c.errorf(at.sub("by"), "", "%s is not in this version yet; want user", one.By)
	default:
		choice(c, at.sub("by"), one.By, "", "user")
	}
	if one.Mode == "soft" {
		c.errorf(at.sub("mode"), "", "soft is not in this version yet; want evict_oldest or refuse")
	} else {
		l.Mode = choice(c, at.sub("mode"), one.Mode, access.EvictOldest, access.EvictOldest, access.RefuseNew)
	}
	if one.When != nil {
		l.When = c.expression(at.sub("when"), *one.When)
	}
	if one.Scope != nil {
		c.errorf(at.sub("scope"), "", "is not in this version yet; leave it out: a limit counts all sessions of the user")
	}
	return l
}

var countryCode = regexp.MustCompile(`^[A-Za-z]{2}$`)

func (c *compiler) lists(at path, f fileLists) Lists {
	l := Lists{Tokens: f.Token, IPs: prefixes(f.IP), Network: c.within(at.sub("network"), f.Network), ASN: f.ASN, UA: f.UA}
	for i, token := range f.Token {
		if token == "" || len(token) > access.MaxToken {
			c.errorf(at.sub("token", i), "", "want a token of 1 to %d bytes", access.MaxToken)
		}
		if _, ok := sealedKey(token); !ok && strings.HasPrefix(token, sealed) {
			c.errorf(at.sub("token", i), "", "want 32 hex digits after %s, which marks the fingerprint of a token", sealed)
		}
	}
	for i, country := range f.Country {
		if !countryCode.MatchString(country) {
			c.errorf(at.sub("country", i), "", "%q is no country; want two letters as in ISO 3166, such as DE", country)
		}
		l.Country = append(l.Country, strings.ToUpper(country))
	}
	for i, asn := range f.ASN {
		if asn == 0 {
			c.errorf(at.sub("asn", i), "", "is 0; want the number of an autonomous system, such as 64500")
		}
	}
	for i, ua := range f.UA {
		if ua == "" {
			c.errorf(at.sub("ua", i), "", "is empty: it would match every user agent")
		}
	}
	return l
}

var domainForm = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

func (c *compiler) domains(at path, f []string) []string {
	var domains []string
	for i, text := range f {
		domain := strings.TrimSuffix(strings.ToLower(text), ".")
		if !domainForm.MatchString(domain) || len(domain) > access.MaxHost {
			c.errorf(at.sub(i), hostOf(domain), `%q is no domain; want example.com or "*.example.com" (names with other letters in their xn-- form)`, text)
		}
		domains = append(domains, domain)
	}
	return domains
}

// hostOf finds the domain in what somebody copied from a browser, "" if there is none.
func hostOf(text string) string {
	_, rest, found := strings.Cut(text, "://")
	if !found {
		rest = text
	}
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, ":")
	if !domainForm.MatchString(host) || host == text {
		return ""
	}
	return host
}
