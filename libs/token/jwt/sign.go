package jwt

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"usher.internal/libs/token"
)

// Sign makes a token that a Verifier with the same options accepts. The key is the check's secret,
// the ticket's private key, or one that stands in key_file.
func Sign(o *Options, t token.Ticket) (token.Signed, error) {
	if err := o.Validate(); err != nil {
		return token.Signed{}, err
	}
	payload, err := payloadOf(o, t)
	if err != nil {
		return token.Signed{}, err
	}
	signer, err := signerOf(o, t.Key)
	if err != nil {
		return token.Signed{}, err
	}
	k, usable, err := newKey(signer.value, signer.id, signer.alg, o.Algorithms)
	if err != nil || !usable {
		return token.Signed{}, errors.Join(errors.New("the key cannot be used for this check"), err)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if k.id != "" {
		options = options.WithHeader("kid", k.id)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithms[0], Key: signer.value}, options)
	if err != nil {
		return token.Signed{}, fmt.Errorf("signing needs a private key: %w", err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		return token.Signed{}, fmt.Errorf("signing: %w", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return token.Signed{}, fmt.Errorf("signing: %w", err)
	}
	// What is handed out was judged by the same code that will judge it.
	v := &Verifier{opts: *o, source: fixed{k}}
	id, err := v.Verify(context.Background(), &token.Question{Token: text, Stream: t.Stream, IP: t.IP, Now: t.Start})
	if err == nil && (id.User != t.User || id.Device != t.Device || id.Sessions != t.Sessions) {
		err = errors.New("it would be read as another's")
	}
	if errors.Is(err, token.ErrNotMine) {
		err = errors.New("it is too long")
	}
	if err != nil {
		return token.Signed{}, fmt.Errorf("the token would not be accepted: %w", err)
	}
	return token.Signed{Token: text}, nil
}

// payloadOf are the claims, under the names that the check reads.
func payloadOf(o *Options, t token.Ticket) ([]byte, error) {
	m := &o.Claims
	c := map[string]any{"jti": uuid.NewString(), "iat": t.Start.Unix(), "nbf": t.Start.Unix(), "exp": t.End.Unix()}
	for _, w := range []struct {
		what, claim string
		asked       bool
		value       any
	}{
		{"user", m.User, t.User != "", t.User},
		{"device", m.Device, t.Device != "", t.Device},
		{"number of sessions", m.Sessions, t.Sessions != 0, t.Sessions},
		{"address", m.IP, t.IP.IsValid(), t.IP.String()},
	} {
		switch {
		case w.asked && w.claim == "":
			return nil, fmt.Errorf("the check's tokens name no %s: see claims", w.what)
		case w.asked:
			put(c, w.claim, w.value)
		}
	}
	switch {
	case t.Salt != "":
		return nil, errors.New("a JWT has no salt")
	case m.Stream != "":
		put(c, m.Stream, t.Stream)
	case m.Streams != "":
		put(c, m.Streams, []string{t.Stream})
	}
	if len(o.Issuer) > 0 {
		c["iss"] = o.Issuer[0]
	}
	if len(o.Audience) > 0 {
		c["aud"] = o.Audience[0]
	}
	return json.Marshal(c)
}

// put follows dots into objects.
func put(c map[string]any, path string, value any) {
	name, rest, more := strings.Cut(path, ".")
	if !more {
		c[name] = value
		return
	}
	inner, ok := c[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		c[name] = inner
	}
	put(inner, rest, value)
}

// signer is a key to sign with.
type signer struct {
	value   any
	id, alg string
}

func signerOf(o *Options, private []byte) (signer, error) {
	if !o.Secret.IsZero() {
		if len(private) > 0 {
			return signer{}, errors.New("the check has a secret: a private key is not needed")
		}
		secret, err := o.Secret.Resolve()
		if err != nil {
			return signer{}, fmt.Errorf("jwt secret: %w", err)
		}
		return signer{value: []byte(secret)}, nil
	}
	var known []key
	if o.KeyFile != "" {
		text, err := readFile(o.KeyFile)
		if err != nil {
			return signer{}, fmt.Errorf("key_file: %w", err)
		}
		if known, err = parseKeys(text, o.Algorithms, false); err != nil {
			return signer{}, fmt.Errorf("key_file: %w", err)
		}
		if len(private) == 0 {
			private = text
		}
	}
	s, ok := privateKey(private)
	if !ok {
		return signer{}, errors.New("the check knows only public keys: give the private one, in PEM or as a JWK")
	}
	for _, k := range known {
		if same(k.value, public(s.value)) {
			s.id = k.id
			return s, nil
		}
	}
	if len(known) > 0 {
		return signer{}, errors.New("the private key belongs to none of the keys in key_file")
	}
	return s, nil
}

// privateKey finds the first key in a text that can sign.
func privateKey(text []byte) (signer, bool) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if value, err := parseBlock(block); err == nil && isPrivate(value) {
			return signer{value: value}, true
		}
	}
	var set struct {
		Keys []jose.JSONWebKey `json:"keys"`
	}
	var one jose.JSONWebKey
	if json.Unmarshal(text, &set) != nil || len(set.Keys) == 0 {
		if json.Unmarshal(text, &one) != nil {
			return signer{}, false
		}
		set.Keys = []jose.JSONWebKey{one}
	}
	at := slices.IndexFunc(set.Keys, func(k jose.JSONWebKey) bool { return k.Valid() && !k.IsPublic() })
	if at < 0 {
		return signer{}, false
	}
	k := set.Keys[at]
	return signer{value: k.Key, id: k.KeyID, alg: k.Algorithm}, true
}

// isPrivate says whether a key of a PEM block can sign.
func isPrivate(value any) bool {
	_, ok := value.(crypto.Signer)
	return ok
}

// same says whether two keys are one.
func same(a, b any) bool {
	if secret, ok := a.([]byte); ok {
		other, ok := b.([]byte)
		return ok && bytes.Equal(secret, other)
	}
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Inspect takes a token apart without judging it.
func Inspect(text string) ([]token.Part, bool) {
	p, ok := parse(text)
	if !ok {
		return nil, false
	}
	parts := []token.Part{{Name: "algorithm", Value: p.header.Alg}}
	if p.header.Kid != "" {
		parts = append(parts, token.Part{Name: "key id", Value: p.header.Kid})
	}
	names := make([]string, 0, len(p.claims))
	for name := range p.claims {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		raw, err := json.Marshal(p.claims[name])
		if err != nil {
			continue
		}
		part := token.Part{Name: name, Value: strings.Trim(string(raw), `"`)}
		if slices.Contains([]string{"exp", "nbf", "iat", "auth_time"}, name) {
			part.Time, _, _ = p.claims.moment(name)
			part.Time = part.Time.Truncate(time.Second)
		}
		parts = append(parts, part)
	}
	return parts, true
}
