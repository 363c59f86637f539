package jwt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"usher.internal/libs/token"
)

// Deps are what a Verifier works with. All may be left out.
type Deps struct {
	// Check is its name, for logs and Fetched.
	Check string
	Log   *slog.Logger
	Now   func() time.Time
	// HTTP fetches key sets; nil gives the verifier a transport of its own.
	HTTP http.RoundTripper
	// Memory keeps fetched keys from one revision of the policy to the next.
	Memory *Memory
	// Fetched is told when keys were read last: at each successful refresh.
	Fetched func(check string, at time.Time)
}

func (d Deps) withDefaults() Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Memory == nil {
		d.Memory = new(Memory)
	}
	if d.Fetched == nil {
		d.Fetched = func(string, time.Time) {}
	}
	return d
}

// source holds the keys in force.
type source interface {
	// keys are those in force; nil if there are none.
	keys() []key
	// early has the keys read again before their time, if that was not tried lately, and waits a
	// short time for it.
	early(ctx context.Context)
	close()
}

// Verifier checks tokens under one check's options. Close it.
type Verifier struct {
	opts   Options
	source source
}

var _ token.Verifier = (*Verifier)(nil)

// New reads the secret or the key file; a key set is fetched in the background, and no question
// waits for it longer than a moment. The error names references and paths, never a key.
func New(o *Options, d Deps) (*Verifier, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d = d.withDefaults()
	v := &Verifier{opts: *o}
	var err error
	switch {
	case o.JWKS.URL != "":
		v.source = openRemote(o, d)
	case o.KeyFile != "":
		v.source, err = openFile(o, d)
	default:
		v.source, err = openSecret(o)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Close ends what reads keys in the background, and waits for it.
func (v *Verifier) Close() { v.source.close() }

// Verify implements token.Verifier. What is no compact JWS, and with OtherPass what another
// issuer made, is token.ErrNotMine. While no keys are there it is token.ErrUnavailable. Nothing
// but the form and the issuer is judged before the signature.
func (v *Verifier) Verify(ctx context.Context, q *token.Question) (token.Identity, error) {
	p, ok := parse(q.Token)
	if !ok {
		return token.Identity{}, token.ErrNotMine
	}
	if p.badBody {
		return token.Identity{}, bad("the token's payload is no JSON object")
	}
	if len(v.opts.Issuer) > 0 {
		if iss, _ := p.claims["iss"].(string); !slices.Contains(v.opts.Issuer, iss) {
			if v.opts.OtherIssuer == OtherPass {
				return token.Identity{}, token.ErrNotMine
			}
			return token.Identity{}, bad("the token is of another issuer")
		}
	}
	if p.header.Crit != nil {
		return token.Identity{}, bad("the token's header has crit: it wants to be read in a way that is not known here")
	}
	if err := v.verifySignature(ctx, &p, q.Token); err != nil {
		return token.Identity{}, err
	}
	return v.judge(&p, q)
}

// judge is what is left once the signature is good.
func (v *Verifier) judge(p *parsed, q *token.Question) (token.Identity, error) {
	if len(v.opts.Audience) > 0 {
		list, d := p.claims.list("aud")
		if d != nil {
			return token.Identity{}, d
		}
		if !slices.ContainsFunc(list, func(a string) bool { return slices.Contains(v.opts.Audience, a) }) {
			return token.Identity{}, bad("the token is for another audience")
		}
	}
	end, d := v.judgeTimes(p.claims, q)
	if d != nil {
		return token.Identity{}, d
	}
	if d := v.judgeScope(p.claims, q); d != nil {
		return token.Identity{}, d
	}
	id, d := v.identity(p.claims)
	if d != nil {
		return token.Identity{}, d
	}
	// A signature can be written in more than one way, what it covers cannot.
	id.Bearer = p.signed
	if v.opts.Recheck {
		id.Expires = end
	}
	return id, nil
}

// verifySignature finds the token's key and holds the signature against it.
func (v *Verifier) verifySignature(ctx context.Context, p *parsed, text string) error {
	if p.loose {
		return bad("the token's signature is not written as signers write it")
	}
	keys := v.source.keys()
	found := candidates(keys, p)
	if len(found) == 0 && (keys == nil || p.header.Kid != "" && !knows(keys, p.header.Kid)) {
		v.source.early(ctx)
		keys = v.source.keys()
		found = candidates(keys, p)
	}
	switch {
	case len(keys) == 0:
		return token.ErrUnavailable
	case len(found) == 0 && p.header.Kid != "" && !knows(keys, p.header.Kid):
		return bad("the token's key (kid) is not known")
	case len(found) == 0:
		return bad("no key of this check may be used with the token's algorithm")
	}
	for _, k := range found {
		jws, err := jose.ParseSignedCompact(text, k.algorithms)
		if err != nil {
			continue // the header that was read first and this one differ
		}
		if _, err := jws.Verify(k.value); err == nil {
			return nil
		}
	}
	return bad("the token's signature does not fit")
}

// candidates are the keys that may have signed: by id, where both have one, and by algorithm.
func candidates(keys []key, p *parsed) []key {
	var found []key
	for _, k := range keys {
		if len(found) < maxCandidate && (p.header.Kid == "" || k.id == "" || k.id == p.header.Kid) &&
			slices.Contains(k.algorithms, jose.SignatureAlgorithm(p.header.Alg)) {
			found = append(found, k)
		}
	}
	return found
}

func knows(keys []key, id string) bool {
	return slices.ContainsFunc(keys, func(k key) bool { return k.id == "" || k.id == id })
}

// fixed are keys that never change: a secret.
type fixed []key

func (f fixed) keys() []key         { return f }
func (fixed) early(context.Context) {}
func (fixed) close()                {}

func openSecret(o *Options) (source, error) {
	secret, err := o.Secret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("jwt secret: %w", err)
	}
	if looksLikeKey(secret) {
		return nil, errors.New("secret: that is a public or private key: name it as key_file. As a secret, everybody who has the public one could sign")
	}
	k, ok, err := newKey([]byte(secret), "", "", o.Algorithms)
	switch {
	case err != nil:
		return nil, fmt.Errorf("secret: %w", err)
	case !ok:
		return nil, errors.New("secret: algorithms names none that it can be used with: HS256 takes 32 bytes or more, HS384 48, HS512 64")
	}
	return fixed{k}, nil
}
