package securetoken

import (
	"context"
	"crypto/sha1" // the scheme's own hash: see README.md for what guards it
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/token"
)

// noCheckIP stands in the sum in place of an address (Flussonic v20.07 and later).
const noCheckIP = "no_check_ip"

// Verifier checks tokens under one check's options.
type Verifier struct {
	secret string
	opts   Options
}

var _ token.Verifier = (*Verifier)(nil)

// New resolves the secret. The error names the reference, never the secret.
func New(o *Options) (*Verifier, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	secret, err := o.Secret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("securetoken secret: %w", err)
	}
	return &Verifier{secret: secret, opts: *o}, nil
}

// Verify implements token.Verifier. A token of another form is token.ErrNotMine,
// one whose hash does not fit is denied as bad_token; its times are judged only
// after its hash, so that expired and not_yet_valid are always true.
func (v *Verifier) Verify(_ context.Context, q *token.Question) (token.Identity, error) {
	p, ok := parse(q.Token)
	if !ok {
		return token.Identity{}, token.ErrNotMine
	}
	ex := readExtras(q.Query)
	if ex.badUser {
		return token.Identity{}, bad("user_id in the query is repeated with another value, or holds characters that no user may have")
	}
	if v.subject(q) == "" {
		return token.Identity{}, bad("the caller gave no " + v.opts.Bind + " that the token could be bound to")
	}
	f, user, ok := v.fit(&p, v.subject(q), v.addresses(q.IP, ex), ex)
	if !ok {
		return token.Identity{}, bad(v.diagnose(&p, q, ex))
	}
	if d := v.judgeTimes(f, q); d != nil {
		return token.Identity{}, d
	}
	if v.opts.RequireUser && user == "" {
		return token.Identity{}, bad("the token names no user, and require_user is set")
	}
	id := token.Identity{User: user}
	if v.opts.SaltLength == 0 {
		id.Claim = &token.Claim{Name: hex.EncodeToString(p.hash[:]), Value: user}
	}
	if v.opts.Recheck {
		id.Expires = time.Unix(unixTime(f.end)+1, 0).Add(v.opts.ClockSkew.Duration())
	}
	return id, nil
}

// fit finds the reading whose sum is the token's hash, and the user it names. A
// fifth field and a user_id that contradict each other never fit; a user_id that
// the sum does not cover is not believed.
func (v *Verifier) fit(p *parsed, subject string, ips addresses, ex extras) (fields, string, bool) {
	for _, f := range p.readings[:p.n] {
		if v.opts.SaltLength != 0 && len(f.salt) != v.opts.SaltLength {
			continue
		}
		users := [2]string{f.user, f.user}
		n := 1
		switch {
		case f.user != "" && ex.user != "" && ex.user != f.user:
			continue
		case f.user == "" && ex.user != "":
			users[1], n = ex.user, 2
		}
		for _, user := range users[:n] {
			for _, ip := range ips.text[:ips.n] {
				sum := v.sum(subject, ip, f, user)
				if subtle.ConstantTimeCompare(sum[:], p.hash[:]) == 1 {
					return f, user, true
				}
			}
		}
	}
	return fields{}, "", false
}

// sum is SHA-1 over the parts, joined without separators as the scheme wants it.
func (v *Verifier) sum(subject, ip string, f fields, user string) [sha1.Size]byte {
	var space [512]byte
	b := space[:0]
	for _, part := range [...]string{subject, ip, f.start, f.end, v.secret, f.salt, user} {
		b = append(b, part...)
	}
	return sha1.Sum(b)
}

func (v *Verifier) subject(q *token.Question) string {
	switch {
	case v.opts.Bind == BindPath:
		return q.Path
	case v.opts.Bind == BindRequested && q.Requested != "":
		return q.Requested
	}
	return q.Stream
}

// addresses are the texts that may stand for the address in the sum.
type addresses struct {
	text [3]string
	n    int
}

func (a *addresses) add(text string) {
	a.text[a.n] = text
	a.n++
}

// addresses lists the viewer's own address in canonical text (RFC 5952 for IPv6,
// 4-in-6 unmapped, no zone), then what else this check accepts. The address is
// never taken from the URL.
func (v *Verifier) addresses(ip netip.Addr, ex extras) addresses {
	var a addresses
	if ip.IsValid() {
		a.add(ip.Unmap().WithZone("").String())
	}
	if !v.opts.CheckIP || ex.noCheckIP {
		a.add(noCheckIP)
	}
	if v.opts.AllowEmptyIP {
		a.add("")
	}
	return a
}

// judgeTimes holds the question's time against the token's, both ends inclusive.
func (v *Verifier) judgeTimes(f fields, q *token.Question) *token.Denial {
	if q.Running && !v.opts.Recheck {
		return nil
	}
	now, skew := q.Now.Unix(), int64(v.opts.ClockSkew.Duration()/time.Second)
	if start := unixTime(f.start); now < start-skew {
		return &token.Denial{Reason: access.NotYet, Text: "the token begins in " + (time.Duration(start-now) * time.Second).String()}
	}
	if end := unixTime(f.end); now > end+skew {
		return &token.Denial{Reason: access.Expired, Text: "the token ended " + (time.Duration(now-end) * time.Second).String() + " ago"}
	}
	return nil
}

// diagnose says why nothing fitted. It only claims what the secret proves: a sum
// that would fit under other options of this check. That the token belongs to
// another address cannot be told from a wrong secret, so it is never said.
func (v *Verifier) diagnose(p *parsed, q *token.Question, ex extras) string {
	loose := Verifier{secret: v.secret}
	subject, other, name := v.subject(q), q.Path, "the path"
	if v.opts.Bind == BindPath {
		other, name = q.Stream, "the stream"
	}
	if f, _, ok := loose.fit(p, subject, v.addresses(q.IP, ex), extras{}); ok {
		if f.user != "" && ex.user != "" {
			return "the token's user and the query's user_id contradict each other"
		}
		return "the hash fits, but the salt has not the length that salt_length demands"
	}
	if _, _, ok := loose.fit(p, subject, withoutIP, ex); ok {
		return "the hash fits without an address, which this check does not take: see check_ip and allow_empty_ip"
	}
	ips := v.addresses(q.IP, extras{noCheckIP: true})
	if _, _, ok := loose.fit(p, other, ips, ex); ok && other != "" {
		return "the hash fits with " + name + " in place of what bind says"
	}
	return "the hash does not fit this stream, address, user and secret"
}

// withoutIP are the ways to leave the address out of a sum.
var withoutIP = addresses{text: [3]string{noCheckIP, ""}, n: 2}

func bad(text string) *token.Denial { return &token.Denial{Reason: access.BadToken, Text: text} }
