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

// randomSalt is hex text of n bytes, 16 if n is 0.
func randomSalt(n int) string {
	if n == 0 {
		n = 16
	}
	raw := make([]byte, (n+1)/2)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw)[:n]
}
