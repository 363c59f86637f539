package aliaser

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/maypok86/otter/v2"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// Aliaser knows streams by the names that viewers ask for. It is safe for concurrent use.
type Aliaser struct {
	guard *middleware.Guard
	cache *otter.Cache[string, answer]
	fresh time.Duration
	now   func() time.Time
}

// answer is what the service said of a name, and when.
type answer struct {
	stream string // "" if the name leads nowhere
	at     time.Time
}

// New makes an aliaser that asks over client, which must not follow redirects. Close it.
func New(o Options, client http.RoundTripper, now func() time.Time, log *slog.Logger) (*Aliaser, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 || o.Cache < 0 {
		return nil, errors.New("timeout must be positive, and cache not negative")
	}
	return &Aliaser{
		guard: middleware.NewGuard("aliases", &upstream{base: base, client: client}, o.limits(), log),
		cache: otter.Must(&otter.Options[string, answer]{MaximumSize: maxNames}),
		fresh: o.Cache, now: now,
	}, nil
}

// Stream is the stream behind a name, "" if the service knows none. While the service cannot
// be asked, its last word on the name goes on; without one the error wraps
// middleware.ErrUnavailable.
func (a *Aliaser) Stream(ctx context.Context, name string) (string, error) {
	old, known := a.cache.GetIfPresent(name)
	if known && a.now().Sub(old.at) < a.fresh {
		return old.stream, nil
	}
	said, err := a.guard.Ask(ctx, &access.Request{Requested: name})
	switch {
	case err == nil:
		a.cache.Set(name, answer{said.User, a.now()})
		return said.User, nil
	case known:
		return old.stream, nil
	}
	return "", err
}

// Close waits for questions under way.
func (a *Aliaser) Close() { a.guard.Close() }
