package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/pgstore"
	"usher.internal/services/usher/cluster"
	"usher.internal/services/usher/policyfile"
)

const answerWithin = 30 * time.Second

// source says which cluster a tool works on.
type source struct {
	Data     cluster.Data `help:"Data directory of usher up." default:"data" env:"USHER_DATA" placeholder:"DIR"`
	Postgres string       `help:"Connection string of the cluster's Postgres, in place of --data." env:"USHER_POSTGRES" placeholder:"DSN"`
}

func (s source) dsn() (string, error) {
	if s.Postgres != "" {
		return s.Postgres, nil
	}
	return s.Data.DSN()
}

// open connects and makes sure that Postgres answers. The caller closes the store.
func (s source) open(ctx context.Context) (*pgstore.Store, error) {
	dsn, err := s.dsn()
	if err != nil {
		return nil, err
	}
	store, err := pgstore.Open(ctx, pgstore.Config{DSN: dsn, MaxConns: 2, Application: "usher tool"}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if err := store.Ping(ctx); err != nil {
		store.Close()
		if s.Postgres == "" {
			return nil, fmt.Errorf("the cluster's Postgres does not answer: is usher up running on %s? %w", s.Data, err)
		}
		return nil, fmt.Errorf("the Postgres given by --postgres does not answer: %w", err)
	}
	return store, nil
}

// with opens the store for one tool's work.
func (s source) with(ctx context.Context, do func(context.Context, *pgstore.Store) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	store, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	err = do(ctx, store)
	if errors.Is(err, admission.ErrUnavailable) {
		return fmt.Errorf("%w; is the cluster up?", err)
	}
	return err
}

// keyer is the cluster's, from the file given or the data directory; nil where its key is
// not at hand.
func (s source) keyer(file string) (*access.Keyer, error) {
	if file != "" {
		return access.LoadKeyer(file)
	}
	k, err := s.Data.Keyer()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return k, err
}

// policy is the given file, or the revision in force. As policyfile.Check it may return both a
// policy without an engine and ErrSecrets.
func (s source) policy(ctx context.Context, file string) (*policyfile.Policy, error) {
	keyer, err := s.keyer("")
	if err != nil {
		return nil, err
	}
	p, err := s.read(ctx, file, keyer)
	if err == nil && keyer != nil { // without the key no token is anybody's
		err = p.Know(lookups{s})
	}
	return p, err
}

func (s source) read(ctx context.Context, file string, keyer *access.Keyer) (*policyfile.Policy, error) {
	if file != "" {
		data, err := policyfile.Read(file)
		if err != nil {
			return nil, err
		}
		return policyfile.Check(ctx, file, data, keyer)
	}
	var p *policyfile.Policy
	err := s.with(ctx, func(ctx context.Context, store *pgstore.Store) error {
		row, err := policyShow{}.row(ctx, store)
		if err != nil {
			return err
		}
		p, err = policyfile.Check(ctx, fmt.Sprintf("policy revision %d", row.Revision), []byte(row.Source), keyer)
		return err
	})
	return p, err
}

// dsn prints the connection string.
type dsn struct {
	Data cluster.Data `help:"Data directory of usher up." default:"data" env:"USHER_DATA" placeholder:"DIR"`
}

// Run prints the connection string in use, also one that was given to usher up.
func (c dsn) Run(app App) error {
	text, err := c.Data.DSN()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(app.Out, text)
	return err
}

// migrate brings the schema up.
type migrate struct{ source }

// Run migrates; it may run while the cluster serves.
func (c migrate) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := s.Migrate(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintln(app.Out, "the schema is up to date")
		return err
	})
}
