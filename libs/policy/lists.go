package policy

import (
	"regexp"
	"strings"

	"usher.internal/libs/access"
)

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
