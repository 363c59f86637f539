package jwt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys      = 128
	minSecret    = 32   // bytes, for HS256; the two longer hashes want 48 and 64 (RFC 7518 §3.2)
	minRSA       = 2048 // bits
	maxRSA       = 8192 // bits: a larger one costs more than a question may
	maxCandidate = 8    // keys that one token is held against
)

// algorithms are all that can be taken. There is no "none".
var algorithms = []jose.SignatureAlgorithm{
	jose.HS256, jose.HS384, jose.HS512, jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

func algorithmNames() string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}

// key is a key, and the algorithms that it may be used with: those of its type, or the one that
// its own `alg` names, as far as the check's `algorithms` has them.
type key struct {
	id         string // "" if it has none
	value      any
	algorithms []jose.SignatureAlgorithm
}

// fitting are the algorithms of a key's type: an RSA key can never be taken for a secret.
func fitting(value any) ([]jose.SignatureAlgorithm, error) {
	switch k := value.(type) {
	case []byte:
		if len(k) < minSecret {
			return nil, fmt.Errorf("it has %d bytes, want at least %d (RFC 7518)", len(k), minSecret)
		}
		return algorithms[0:min(len(k)/16-1, 3)], nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("the RSA key has %d bits, want %d to %d", bits, minRSA, maxRSA)
		}
		return algorithms[3:9], nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return algorithms[9:10], nil
		case elliptic.P384():
			return algorithms[10:11], nil
		case elliptic.P521():
			return algorithms[11:12], nil
		}
		return nil, errors.New("the curve of the EC key is not P-256, P-384 or P-521")
	case ed25519.PublicKey:
		return algorithms[12:13], nil
	}
	return nil, fmt.Errorf("keys of type %T are not for signatures", value)
}

// newKey takes a key of any source. It is not ok, without an error, where the check's
// algorithms leave none to use it with.
func newKey(value any, id, alg string, allowed []string) (key, bool, error) {
	fits, err := fitting(public(value))
	if err != nil {
		return key{}, false, err
	}
	k := key{id: id, value: public(value)}
	for _, a := range fits {
		if (alg == "" || alg == string(a)) && (len(allowed) == 0 || slices.Contains(allowed, string(a))) {
			k.algorithms = append(k.algorithms, a)
		}
	}
	return k, len(k.algorithms) > 0, nil
}

// public is the public half of a key; a secret is what it is.
func public(value any) any {
	switch k := value.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	}
	return value
}

// parseKeys reads a PEM, JWK or JWKS text. A key of a set that cannot be used is left out; a
// text without any usable key is an error. fetched sets must not hold secrets: they are public.
func parseKeys(text []byte, allowed []string, fetched bool) ([]key, error) {
	if !fetched && bytes.Contains(text, []byte("-----BEGIN ")) {
		return parsePEM(text, allowed)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("neither PEM nor JSON")
	}
	if set.Keys == nil {
		set.Keys = []json.RawMessage{text} // a single JWK
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, want at most %d", len(set.Keys), maxKeys)
	}
	var keys []key
	var first error
	for _, raw := range set.Keys {
		k, ok, err := parseJWK(raw, allowed, fetched)
		if err != nil && first == nil {
			first = err
		}
		if ok && err == nil {
			keys = append(keys, k)
		}
	}
	return usable(keys, first)
}

func usable(keys []key, first error) ([]key, error) {
	switch {
	case len(keys) > 0:
		return keys, nil
	case first != nil:
		return nil, fmt.Errorf("no key can be used: %w", first)
	}
	return nil, errors.New("no key can be used for the algorithms of this check")
}

func parseJWK(raw json.RawMessage, allowed []string, fetched bool) (key, bool, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); err != nil {
		// Its text could hold the key itself.
		return key{}, false, errors.New("a JWK cannot be read, or its type is not known")
	}
	var more struct {
		Ops []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &more); err != nil {
		return key{}, false, errors.New("the key_ops of a JWK cannot be read")
	}
	if _, secret := jwk.Key.([]byte); secret && fetched {
		return key{}, false, errors.New("a published key set holds a secret")
	}
	if jwk.Use != "" && jwk.Use != "sig" || more.Ops != nil && !slices.Contains(more.Ops, "verify") && !slices.Contains(more.Ops, "sign") {
		return key{}, false, nil // for encryption
	}
	return newKey(jwk.Key, jwk.KeyID, jwk.Algorithm, allowed)
}

func parsePEM(text []byte, allowed []string) ([]key, error) {
	var keys []key
	var first error
	for len(keys) < maxKeys {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		value, err := parseBlock(block)
		var k key
		ok := false
		if err == nil {
			k, ok, err = newKey(value, "", "", allowed)
		}
		if err != nil && first == nil {
			first = err
		}
		if ok && err == nil {
			keys = append(keys, k)
		}
	}
	return usable(keys, first)
}

func parseBlock(b *pem.Block) (any, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.Bytes)
	}
	return nil, fmt.Errorf("PEM blocks %q are not for this", b.Type)
}
