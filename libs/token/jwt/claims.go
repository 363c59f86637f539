package jwt

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/libs/token"
)

const (
	maxSessions = 1_000_000
	maxPatterns = 256
)

// text reads a claim that is a text or a whole number: many portals number their users.
func (c claims) text(path string) (string, *token.Denial) {
	v, ok := c.find(path)
	if !ok {
		return "", nil
	}
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case json.Number:
		if _, err := strconv.ParseInt(v.String(), 10, 64); err != nil {
			return "", badClaim(path, "is no text")
		}
		s = v.String()
	default:
		return "", badClaim(path, "is no text")
	}
	if access.Clean(s, access.MaxName) != s {
		return "", badClaim(path, "is too long, or holds characters that no name may have")
	}
	return s, nil
}

// list reads a claim that is a text or a list of texts; nil if it is not there.
func (c claims) list(path string) ([]string, *token.Denial) {
	v, ok := c.find(path)
	if !ok {
		return nil, nil
	}
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok || len(list) == maxPatterns {
				return nil, badClaim(path, "is no list of texts, or too long")
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, badClaim(path, "is no text and no list of texts")
}

// number reads a whole number above 0, also one written as a text; 0 if it is not there.
func (c claims) number(path string) (int, *token.Denial) {
	s, d := c.text(path)
	if s == "" || d != nil {
		return 0, d
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSessions {
		return 0, badClaim(path, "is no number from 1 to "+strconv.Itoa(maxSessions))
	}
	return n, nil
}

// moment reads a NumericDate (RFC 7519 §2): seconds, maybe with a fraction.
func (c claims) moment(name string) (time.Time, bool, *token.Denial) {
	v, ok := c[name]
	if !ok || v == nil {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false, badClaim(name, "is no time in seconds")
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > 1e11 {
		return time.Time{}, false, badClaim(name, "is no time in seconds")
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), true, nil
}

// identity is what the claims say of the bearer.
func (v *Verifier) identity(c claims) (token.Identity, *token.Denial) {
	var id token.Identity
	var d *token.Denial
	if id.User, d = c.text(v.opts.Claims.User); d != nil {
		return id, d
	}
	if id.User == "" && v.opts.RequireUser {
		return id, bad("the token names no user, and require_user is set")
	}
	if id.Device, d = c.text(v.opts.Claims.Device); d != nil {
		return id, d
	}
	id.Sessions, d = c.number(v.opts.Claims.Sessions)
	return id, d
}

// judgeScope holds stream and address of the question against what the token is good for.
func (v *Verifier) judgeScope(c claims, q *token.Question) *token.Denial {
	m := &v.opts.Claims
	if m.Stream != "" || m.Streams != "" {
		names, d := c.list(m.Stream)
		if d != nil {
			return d
		}
		patterns, d := c.list(m.Streams)
		if d != nil {
			return d
		}
		if names == nil && patterns == nil {
			return bad("the token does not say which streams it is good for")
		}
		if !slices.Contains(names, q.Stream) && !anyMatches(patterns, q.Stream) {
			return bad("the token is good for other streams")
		}
	}
	if m.IP == "" {
		return nil
	}
	networks, d := c.list(m.IP)
	if d != nil {
		return d
	}
	if networks == nil {
		return bad("the token does not say which address it is good for")
	}
	if !anyHolds(networks, q.IP) {
		return &token.Denial{Reason: access.WrongIP, Text: "the token belongs to another address"}
	}
	return nil
}

func anyMatches(patterns []string, stream string) bool {
	for _, p := range patterns {
		if p == stream {
			return true
		}
		if !strings.Contains(p, "*") {
			continue
		}
		if g, err := match.ParseGlob(p); err == nil && g.Match(stream) {
			return true
		}
	}
	return false
}

func anyHolds(networks []string, ip netip.Addr) bool {
	for _, text := range networks {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(ip) {
			return true
		}
		if a, err := netip.ParseAddr(text); err == nil && a.Unmap().WithZone("") == ip {
			return true
		}
	}
	return false
}

// judgeTimes holds the question's time against the token's, and returns its end, the zero Time
// if it has none. A running session is only judged again with recheck.
func (v *Verifier) judgeTimes(c claims, q *token.Question) (time.Time, *token.Denial) {
	exp, ends, d := c.moment("exp")
	if d != nil {
		return exp, d
	}
	nbf, begins, d := c.moment("nbf")
	if d != nil {
		return exp, d
	}
	iat, issued, d := c.moment("iat")
	if d != nil {
		return exp, d
	}
	skew, maxAge := v.opts.ClockSkew.Duration(), v.opts.MaxAge.Duration()
	switch {
	case !ends && v.opts.RequireExp:
		return exp, bad("the token has no exp, and require_exp is set")
	case maxAge > 0 && !issued:
		return exp, bad("the token has no iat, and max_age is set")
	}
	if old := iat.Add(maxAge); maxAge > 0 && (!ends || old.Before(exp)) {
		exp, ends = old, true
	}
	if ends {
		exp = exp.Add(skew)
	}
	if q.Running && !v.opts.Recheck {
		return exp, nil
	}
	switch {
	case ends && !q.Now.Before(exp):
		return exp, &token.Denial{Reason: access.Expired, Text: "the token ended " + seconds(q.Now.Sub(exp.Add(-skew))) + " ago"}
	case begins && q.Now.Add(skew).Before(nbf):
		return exp, &token.Denial{Reason: access.NotYet, Text: "the token begins in " + seconds(nbf.Sub(q.Now))}
	case maxAge > 0 && q.Now.Add(skew).Before(iat):
		return exp, &token.Denial{Reason: access.NotYet, Text: "the token was issued " + seconds(iat.Sub(q.Now)) + " from now"}
	}
	return exp, nil
}

func seconds(d time.Duration) string { return d.Truncate(time.Second).String() }

func bad(text string) *token.Denial { return &token.Denial{Reason: access.BadToken, Text: text} }

// badClaim names the claim as the policy does; its value is never told.
func badClaim(path, text string) *token.Denial {
	return bad(fmt.Sprintf("the token's claim %s %s", path, text))
}
