package decide

import (
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
	"usher.internal/libs/token/jwt"
	"usher.internal/libs/token/securelink"
	"usher.internal/libs/token/securetoken"
)

// scheme is a kind of verifier.
type scheme struct {
	policy.Kind
	// open makes a check ready; what it returns second ends its background work, if any.
	open func(c *policy.Check, d *Deps) (token.Verifier, func(), error)
	// sign makes a token under a check's options.
	sign func(options any, t token.Ticket) (token.Signed, error)
	// inspect takes a token, or the address that carries it, apart without judging it. options
	// are a check's, nil if none is known.
	inspect func(options any, tok, address string) ([]token.Part, bool)
}

// schemes are the kinds of verifiers. The list is the order in which a token of unknown scheme
// is looked at.
var schemes = []scheme{
	{
		Kind: policy.Kind{
			Type:       "securetoken",
			NewOptions: func() any { return securetoken.NewOptions() },
			NamesUser:  func(any) bool { return true },
		},
		open: func(c *policy.Check, _ *Deps) (token.Verifier, func(), error) {
			v, err := securetoken.New(c.Options.(*securetoken.Options))
			return v, idle, err
		},
		sign: func(o any, t token.Ticket) (token.Signed, error) {
			return securetoken.SignTicket(o.(*securetoken.Options), t)
		},
		inspect: func(_ any, tok, _ string) ([]token.Part, bool) { return securetoken.Inspect(tok) },
	},
	{
		Kind: policy.Kind{
			Type:       "jwt",
			NewOptions: func() any { return jwt.NewOptions() },
			NamesUser:  func(o any) bool { return o.(*jwt.Options).NamesUser() },
		},
		open:    openJWT,
		sign:    func(o any, t token.Ticket) (token.Signed, error) { return jwt.Sign(o.(*jwt.Options), t) },
		inspect: func(_ any, tok, _ string) ([]token.Part, bool) { return jwt.Inspect(tok) },
	},
	{
		Kind: policy.Kind{
			Type:       "secure_link",
			InAddress:  true,
			NewOptions: func() any { return securelink.NewOptions() },
			NamesUser:  func(o any) bool { return o.(*securelink.Options).User != "" },
		},
		open: func(c *policy.Check, _ *Deps) (token.Verifier, func(), error) {
			v, err := securelink.New(c.Options.(*securelink.Options))
			return v, idle, err
		},
		sign: func(o any, t token.Ticket) (token.Signed, error) { return securelink.Sign(o.(*securelink.Options), t) },
		inspect: func(o any, _, address string) ([]token.Part, bool) {
			known, _ := o.(*securelink.Options)
			return securelink.Inspect(known, address)
		},
	},
}

// idle ends nothing.
func idle() {}

func openJWT(c *policy.Check, d *Deps) (token.Verifier, func(), error) {
	v, err := jwt.New(c.Options.(*jwt.Options), jwt.Deps{
		Check: c.Name, Log: d.Log, Now: d.Now, HTTP: d.HTTP, Memory: d.Keys, Fetched: d.Fetched,
	})
	if err != nil {
		return nil, idle, err
	}
	return v, v.Close, nil
}
