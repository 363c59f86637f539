package decide

import (
	"fmt"

	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/http"
	"usher.internal/libs/middleware/upstream"
	"usher.internal/libs/policy"
	"usher.internal/libs/token"
	"usher.internal/libs/token/securelink"
	"usher.internal/libs/token/securetoken"
)

// scheme is a kind of verifier.
type scheme struct {
	policy.Kind
	open func(options any) (token.Verifier, error)
}

// system is a kind of middleware.
type system struct {
	policy.Kind
	open func(options any, d *Deps) (*upstream.Middleware, middleware.Limits, error)
}

// schemes and middlewares are everything that a check can be. A new one is a new
// folder and one entry here.
var (
	schemes = []scheme{{
		Kind: policy.Kind{
			Type:       "securetoken",
			NewOptions: func() any { return securetoken.NewOptions() },
			NamesUser:  func(any) bool { return true },
		},
		open: func(o any) (token.Verifier, error) { return securetoken.New(o.(*securetoken.Options)) },
	}, {
		Kind: policy.Kind{
			Type:       "secure_link",
			InAddress:  true,
			NewOptions: func() any { return securelink.NewOptions() },
			NamesUser:  func(o any) bool { return o.(*securelink.Options).User != "" },
		},
		open: func(o any) (token.Verifier, error) { return securelink.New(o.(*securelink.Options)) },
	}}
	middlewares = []system{
		upstreamOf("http", http.NewOptions, http.New),
	}
)

// Kinds lists the types of checks that a policy may use.
func Kinds() []policy.Kind {
	kinds := make([]policy.Kind, 0, len(schemes)+len(middlewares))
	for _, s := range schemes {
		kinds = append(kinds, s.Kind)
	}
	for _, m := range middlewares {
		kinds = append(kinds, m.Kind)
	}
	return kinds
}

// upstreamOptions are options of a kind that is asked upstream.
type upstreamOptions interface{ Common() *upstream.Options }

// upstreamOf is a kind whose folder has these options and this dialect.
func upstreamOf[O upstreamOptions, D upstream.Dialect](kind string, newOptions func() O, newDialect func(O) (D, error)) system {
	return system{
		Kind: policy.Kind{
			Type:       kind,
			Upstream:   true,
			NewOptions: func() any { return newOptions() },
			NamesUser:  func(any) bool { return true },
		},
		open: func(options any, d *Deps) (*upstream.Middleware, middleware.Limits, error) {
			o := options.(O)
			dialect, err := newDialect(o)
			if err != nil {
				return nil, middleware.Limits{}, err
			}
			m := upstream.New(kind, dialect, o.Common(), upstream.Deps{HTTP: d.HTTP, Tracer: d.Tracer, Now: d.Now})
			return m, o.Common().Limits(), nil
		},
	}
}

// open makes the check ready to be asked.
func open(c *policy.Check, d *Deps) (*check, error) {
	for _, s := range schemes {
		if s.Type == c.Type {
			v, err := s.open(c.Options)
			return &check{Check: c, verifier: v, stop: func() {}}, err
		}
	}
	for _, s := range middlewares {
		if s.Type == c.Type {
			m, limits, err := s.open(c.Options, d)
			if err != nil {
				return nil, err
			}
			g := middleware.NewGuard(c.Name, m, limits, d.Log)
			return &check{Check: c, middleware: g, stop: func() { g.Close(); m.Close() }}, nil
		}
	}
	return nil, fmt.Errorf("no check of type %q is built in", c.Type)
}
