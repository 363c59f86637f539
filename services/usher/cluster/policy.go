package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"usher.internal/libs/config"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
	"usher.internal/services/usher/policyfile"
)

// author of the revisions that come from the watched file.
const author = "usher up"

// readPolicy checks the file before anything is started: a first start with a policy that
// cannot be used must fail at once. Later ones can go on with the revision that is stored.
func (p *parts) readPolicy(ctx context.Context) (err error) {
	if p.Policy == p.Data.PolicyFile() {
		if err := p.Data.makeExample(); err != nil {
			return err
		}
	}
	if p.source, err = policyfile.Read(p.Policy); err != nil {
		return err
	}
	p.policy, err = policyfile.Check(ctx, p.Policy, p.source, p.keyer)
	if err == nil {
		return nil
	}
	if errors.Is(err, policyfile.ErrSecrets) {
		err = fmt.Errorf("policy %s: %w", p.Policy, err)
	}
	if _, never := p.Data.DSN(); errors.Is(never, ErrNoData) && p.Postgres == "" {
		return err
	}
	p.policy, p.policyErr = nil, err
	return nil
}

// applyPolicy brings the file into force where it differs from what is. A file that cannot
// be used changes nothing, if there is anything that it could change.
func (p *parts) applyPolicy(ctx context.Context) error {
	if p.policyErr != nil {
		return p.keepPolicy(ctx)
	}
	since, err := policyfile.Since(ctx, p.store, p.policy, author)
	if err != nil {
		return err
	}
	if since != nil {
		p.Log.InfoContext(ctx, "policy file has not changed, what was applied since stays in force",
			slog.Int64(telemetry.Revision, since.Revision), slog.String("author", since.Author))
		return p.usePolicy(ctx, since)
	}
	revision, changed, err := policyfile.ApplyFile(ctx, p.store, p.policy, author, "read at the start from "+p.Policy)
	if failed, ok := errors.AsType[*policyfile.FailedError](err); ok {
		p.policyErr = failed
		return p.keepPolicy(ctx)
	}
	if err != nil {
		return err
	}
	if changed {
		p.Log.InfoContext(ctx, "policy is in force", slog.Int64(telemetry.Revision, revision))
	}
	warnings := p.policy.Snapshot.Warnings
	if p.files.Geo.Databases() == 0 {
		warnings = append(warnings, p.policy.Snapshot.Located...)
	}
	for _, w := range warnings {
		p.Log.WarnContext(ctx, "policy file", slog.String("problem", w.String()))
	}
	return nil
}

func (p *parts) keepPolicy(ctx context.Context) error {
	current, err := p.store.CurrentPolicy(ctx)
	if err != nil {
		return err
	}
	if current == nil {
		return p.policyErr
	}
	policyfile.Tell(ctx, p.Log, p.policyErr)
	return p.usePolicy(ctx, current)
}

// usePolicy takes a stored revision in the place of the file.
func (p *parts) usePolicy(ctx context.Context, current *pgstore.PolicyRow) (err error) {
	if p.policy != nil {
		p.policy.Close()
	}
	p.policy, err = policyfile.Check(ctx, fmt.Sprintf("policy revision %d", current.Revision), []byte(current.Source), p.keyer)
	var problems config.Problems
	if errors.As(err, &problems) {
		return fmt.Errorf("neither %s nor the stored revision %d can be used by this version: %w", p.Policy, current.Revision, err)
	}
	return nil // a secret that is not there yet: the workers try again
}

func readToken(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the NATS token: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
