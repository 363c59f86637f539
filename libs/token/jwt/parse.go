package jwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"usher.internal/libs/access"
)

const (
	maxToken  = access.MaxToken
	maxHeader = 2048
	maxKeyID  = 256
)

// header is what is read of a token's header before a key is chosen. Nothing in it is believed:
// keys that a token brings along (jwk, jku, x5u, x5c) are never looked at.
type header struct {
	Alg  string          `json:"alg"`
	Kid  string          `json:"kid"`
	Crit json.RawMessage `json:"crit"`
	Enc  string          `json:"enc"`
}

// parsed is a token that has the form of a compact JWS.
type parsed struct {
	header  header
	claims  claims
	badBody bool // the payload is no JSON object
	signed  string
	// loose says that the signature is not in its one form. One token has one text: with the bits
	// that base64 leaves unused a viewer could write it in four ways, and a ban on the token would
	// know one of them.
	loose bool
}

// parse takes a compact JWS apart. It says false for any other form, encrypted tokens included.
func parse(token string) (parsed, bool) {
	var p parsed
	if len(token) > maxToken {
		return p, false
	}
	head, rest, ok := strings.Cut(token, ".")
	if !ok || len(head) > maxHeader {
		return p, false
	}
	body, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return p, false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	p.loose = err != nil || strings.ContainsAny(signature, "\r\n")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || !bytes.HasPrefix(raw, []byte("{")) || json.Unmarshal(raw, &p.header) != nil {
		return p, false
	}
	if p.header.Alg == "" || p.header.Enc != "" || len(p.header.Kid) > maxKeyID {
		return p, false
	}
	p.signed = token[:len(head)+1+len(body)]
	if raw, err = base64.RawURLEncoding.DecodeString(body); err != nil {
		return p, false
	}
	p.claims, ok = parseClaims(raw)
	p.badBody = !ok
	return p, true
}

// claims are the payload.
type claims map[string]any

// parseClaims keeps numbers as they are written: an id of 17 digits is not a float.
func parseClaims(raw []byte) (claims, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var c claims
	if err := d.Decode(&c); err != nil || c == nil {
		return nil, false
	}
	return c, !d.More()
}

// find follows dots into objects; a claim that has the dots in its own name ("https://x.y/id")
// comes first.
func (c claims) find(path string) (any, bool) {
	if path == "" {
		return nil, false
	}
	at := map[string]any(c)
	for {
		if v, ok := at[path]; ok {
			return v, v != nil
		}
		name, rest, more := strings.Cut(path, ".")
		if !more {
			return nil, false
		}
		inner, ok := at[name].(map[string]any)
		if !ok {
			return nil, false
		}
		at, path = inner, rest
	}
}
