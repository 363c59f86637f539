package command

import (
	"context"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/subscriber"
)

// lookups are the cluster's own subscribers for one dry run: each look has a connection of its own.
type lookups struct{ source }

var _ decide.Subscribers = lookups{}

// ByToken implements decide.Subscribers.
func (l lookups) ByToken(ctx context.Context, realm string, token access.Key) (f decide.Found, err error) {
	err = l.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		f, err = s.Subscribers().ByToken(ctx, realm, token)
		return err
	})
	return f, err
}

// ByLogin implements decide.Subscribers.
func (l lookups) ByLogin(ctx context.Context, realm, login string) (f decide.Found, err error) {
	err = l.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		f, err = s.Subscribers().ByLogin(ctx, realm, login)
		return err
	})
	return f, err
}

// Packages implements decide.Subscribers.
func (l lookups) Packages(ctx context.Context, realm string) (p subscriber.Packages, err error) {
	err = l.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		p, err = s.Subscribers().Packages(ctx, realm)
		return err
	})
	return p, err
}
