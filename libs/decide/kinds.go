package decide

import (
	"fmt"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/flussonic"
	"usher.internal/libs/middleware/http"
	"usher.internal/libs/middleware/iptvportal"
	"usher.internal/libs/middleware/ministra"
	"usher.internal/libs/middleware/smarty"
	"usher.internal/libs/middleware/upstream"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
)

// system is a kind of middleware.
type system struct {
	policy.Kind
	open func(options any, d *Deps) (*upstream.Middleware, middleware.Limits, error)
}

// register is a kind of check that looks among the operator's own subscribers.
type register struct {
	policy.Kind
	open func(options any, realm string, d *Deps) (*accounts, error)
}

// schemes (schemes.go), registers and middlewares are everything that a check can be. A new one
// is a new folder and one entry there or here.
var (
	registers = []register{{
		Kind: policy.Kind{
			Type:         "users",
			NewOptions:   func() any { return subscriber.NewOptions() },
			NamesUser:    func(any) bool { return true },
			ReadsAddress: func(o any) bool { return o.(*subscriber.Options).AllowPassword },
			PlaylistTrust: func(o any) (bool, []config.Prefix) {
				p := o.(*subscriber.Options).Playlist
				if p == nil {
					return false, nil
				}
				return p.Public, p.Trust
			},
		},
		open: openAccounts,
	}}
	middlewares = []system{
		upstreamOf("http", 0, http.NewOptions, http.New),
		oddNumber(upstreamOf("ministra", ministra.Grant, ministra.NewOptions, ministra.New)),
		upstreamOf("iptvportal", 0, iptvportal.NewOptions, iptvportal.New),
		upstreamOf("smarty", smarty.Grant, smarty.NewOptions, smarty.New),
		upstreamOf("flussonic", flussonic.Grant, flussonic.NewOptions, flussonic.New),
	}
)

// Kinds lists the types of checks that a policy may use.
func Kinds() []policy.Kind {
	kinds := make([]policy.Kind, 0, len(schemes)+len(registers)+len(middlewares))
	for _, s := range schemes {
		kinds = append(kinds, s.Kind)
	}
	for _, r := range registers {
		kinds = append(kinds, r.Kind)
	}
	for _, m := range middlewares {
		kinds = append(kinds, m.Kind)
	}
	return kinds
}

// upstreamOptions are options of a kind that is asked upstream.
type upstreamOptions interface{ Common() *upstream.Options }

// upstreamOf is a kind whose folder has these options and this dialect, and whose yes is
// kept for grant where nobody says.
func upstreamOf[O upstreamOptions, D upstream.Dialect](
	kind string, grant time.Duration, newOptions func() O, newDialect func(O) (D, error),
) system {
	return system{
		Kind: policy.Kind{
			Type:       kind,
			Upstream:   true,
			Grant:      grant,
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

// oddNumber is a kind whose number of sessions was meant for something else.
func oddNumber(s system) system {
	s.OddNumber = true
	return s
}

// open makes the check ready to be asked.
func open(c *policy.Check, d *Deps) (*check, error) {
	for _, s := range schemes {
		if s.Type == c.Type {
			v, stop, err := s.open(c, d)
			return &check{Check: c, verifier: v, stop: stop}, err
		}
	}
	for _, r := range registers {
		if r.Type == c.Type {
			a, err := r.open(c.Options, c.Realm, d)
			return &check{Check: c, accounts: a, stop: func() {}}, err
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
