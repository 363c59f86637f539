// Package upstreamtest holds every kind of middleware to what all of them promise:
// the cases of its testdata, and what no upstream and no viewer may bring about.
package upstreamtest

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/middleware/upstream"
)

// Options are a kind's own, with the common ones embedded.
type Options interface {
	comparable
	Common() *upstream.Options
	Validate() error
}

// Suite is one kind under test, in one of its settings.
type Suite[O Options, D upstream.Dialect] struct {
	Kind       string
	NewOptions func() O
	New        func(O) (D, error)
	// Headers may be sent beside Host, User-Agent and those of Astra.
	Headers []string
	// Setting changes the options for everything but the cases; nil changes nothing.
	Setting func(O)
	// Yes is the body with which a 200 is a yes.
	Yes string
	// Reads says that the body is needed for a yes.
	Reads bool
}

// options are the defaults with the setting, for an upstream at this address.
func (s *Suite[O, D]) options(url string) O {
	o := s.NewOptions()
	o.Common().URL = url
	o.Common().Timeout = config.Duration(5 * time.Second)
	if s.Setting != nil {
		s.Setting(o)
	}
	return o
}

// open makes the middleware, which is closed when the test ends.
func (s *Suite[O, D]) open(t testing.TB, o O) *upstream.Middleware {
	t.Helper()
	d, err := s.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m := upstream.New(s.Kind, d, o.Common(), upstream.Deps{Tracer: noop.NewTracerProvider().Tracer(""), Now: time.Now})
	t.Cleanup(m.Close)
	return m
}

// request is one that every kind asks about.
func request() *access.Request {
	return &access.Request{Query: "token=VIEWERSTOKEN", Token: "VIEWERSTOKEN", Stream: "a001", Key: access.Key{0xab, 15: 0xcd}}
}
