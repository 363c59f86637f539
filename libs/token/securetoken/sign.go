package securetoken

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"usher.internal/libs/token"
)

// Ticket is what a token is made for.
type Ticket struct {
	// Stream and Path: the one that the options bind to must be set.
	Stream, Path string
	// IP of the viewer. The zero Addr makes a token for any address, if the
	// options accept one.
	IP netip.Addr
	// Start and End bound the token, both inclusive, in whole seconds.
	Start, End time.Time
	// Salt is any text of the salt's alphabet; "" takes a random one.
	Salt string
	// User is added to the sum and as fifth field, "" for none.
	User string
}

// Sign makes a token that a Verifier with the same options accepts. It refuses
// what such a Verifier would refuse.
func Sign(o *Options, t Ticket) (string, error) {
	v, err := New(o)
	if err != nil {
		return "", err
	}
	q := &token.Question{Stream: t.Stream, Path: t.Path, IP: t.IP}
	if v.subject(q) == "" {
		return "", fmt.Errorf("the token is bound to the %s, which is empty", o.Bind)
	}
	// The viewer's own address comes first, the literal before the empty text.
	ips := v.addresses(t.IP, extras{})
	if ips.n == 0 {
		return "", errors.New("an address is needed: check_ip is set")
	}
	if t.Salt == "" {
		t.Salt = randomSalt(o.SaltLength)
	}
	f := fields{salt: t.Salt, start: strconv.FormatInt(t.Start.Unix(), 10), end: strconv.FormatInt(t.End.Unix(), 10)}
	sum := v.sum(v.subject(q), ips.text[0], f, t.User)
	out := hex.EncodeToString(sum[:]) + "-" + f.salt + "-" + f.end + "-" + f.start
	if t.User != "" {
		out += "-" + t.User
	}
	p, ok := parse(out)
	if !ok {
		return "", errors.New("salt, user or times hold what no token may hold")
	}
	if _, user, ok := v.fit(&p, v.subject(q), ips, extras{}); !ok || user != t.User {
		return "", fmt.Errorf("the salt has %d bytes, want %d", len(t.Salt), o.SaltLength)
	}
	return out, nil
}

// SignTicket is Sign for a ticket of any scheme.
func SignTicket(o *Options, t token.Ticket) (token.Signed, error) {
	if t.Device != "" || t.Sessions != 0 || len(t.Key) > 0 {
		return token.Signed{}, errors.New("a securetoken has no device, no number of sessions and no private key")
	}
	text, err := Sign(o, Ticket{Stream: t.Stream, Path: t.Path, IP: t.IP, Start: t.Start, End: t.End, Salt: t.Salt, User: t.User})
	return token.Signed{Token: text}, err
}

// Inspect takes a token apart without judging it. Of a token that can be read in more than one
// way (README.md, "What makers disagree on") it shows the first.
func Inspect(text string) ([]token.Part, bool) {
	p, ok := parse(text)
	if !ok {
		return nil, false
	}
	f := p.readings[0]
	parts := []token.Part{
		{Name: "hash (SHA-1)", Value: hex.EncodeToString(p.hash[:])},
		{Name: "salt", Value: f.salt},
		{Name: "start", Value: f.start, Time: time.Unix(unixTime(f.start), 0)},
		{Name: "end", Value: f.end, Time: time.Unix(unixTime(f.end), 0)},
	}
	if f.user != "" {
		parts = append(parts, token.Part{Name: "user", Value: f.user})
	}
	return parts, true
}

// randomSalt is hex text of n bytes, 16 if n is 0.
func randomSalt(n int) string {
	if n == 0 {
		n = 16
	}
	raw := make([]byte, (n+1)/2)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)[:n]
}
