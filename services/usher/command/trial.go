package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/services/usher/policyfile"
)

// Bounds of a trial: long enough to look, short enough to be one.
const (
	shortTrial = 5 * time.Second
	longTrial  = 7 * 24 * time.Hour
)

// try applies a policy that goes back by itself.
func try(ctx context.Context, app App, s *pgstore.Store, p *policyfile.Policy, comment string, lasts time.Duration) error {
	if lasts < shortTrial || lasts > longTrial {
		return fmt.Errorf("--confirm %s: want %s to %s", short(lasts), short(shortTrial), short(longTrial))
	}
	t, err := policyfile.Try(ctx, s, p, whoami(), comment, lasts)
	if errors.Is(err, pgstore.ErrNothingBefore) {
		return fmt.Errorf("%w: nothing was applied; --confirm is for a change of the policy in force", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "revision %d is in force within a second and goes back to revision %d at %s, unless: usher policy confirm %d\n",
		t.Revision, t.BackTo, clock(t.Due), t.Revision)
	return err
}

type policyConfirm struct {
	source
	Revision int64 `arg:"" optional:"" help:"Number of the revision; the one that waits if left out."`
}

// Run keeps the revision on trial.
func (c policyConfirm) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		revision, err := s.ConfirmPolicy(ctx, c.Revision, whoami())
		if errors.Is(err, pgstore.ErrNoTrial) {
			return c.missed(ctx, s, err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(app.Out, "revision %d stays in force\n", revision)
		return err
	})
}

// missed says what became of the trial that was meant.
func (c policyConfirm) missed(ctx context.Context, s *pgstore.Store, err error) error {
	rows, herr := s.PolicyHistory(ctx, 2)
	if herr != nil || len(rows) == 0 {
		return errors.Join(err, herr)
	}
	newest := rows[0]
	switch {
	case len(rows) == 2 && rows[1].WentBack != nil && *rows[1].WentBack == newest.Revision:
		return fmt.Errorf("revision %d was not confirmed in time; revision %d is in force: %s", rows[1].Revision, newest.Revision, oneLine(newest.Comment))
	case waits(&newest):
		return fmt.Errorf("revision %d waits to be confirmed, not %d", newest.Revision, c.Revision)
	}
	return fmt.Errorf("%w: revision %d is in force for good", err, newest.Revision)
}

type policyRollback struct {
	source
	Revision int64         `arg:"" optional:"" help:"Number of the revision; the one before if left out."`
	Comment  string        `help:"Why, for the history." short:"m"`
	Confirm  time.Duration `help:"As in apply." placeholder:"TIME"`
}

// Run applies an older revision's text as a new one.
func (c policyRollback) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		row, err := c.row(ctx, s)
		if err != nil {
			return err
		}
		p, err := policyfile.Check(ctx, fmt.Sprintf("policy revision %d", row.Revision), []byte(row.Source), nil)
		if err != nil && !errors.Is(err, policyfile.ErrSecrets) {
			return fmt.Errorf("revision %d cannot be used by this version: %w", row.Revision, err)
		}
		defer p.Close()
		comment := "back to revision " + strconv.FormatInt(row.Revision, 10) + colon(c.Comment)
		if c.Confirm != 0 {
			return try(ctx, app, s, p, comment, c.Confirm)
		}
		revision, changed, err := policyfile.Apply(ctx, s, p, whoami(), comment)
		if err != nil {
			return err
		}
		if !changed {
			return unchanged(ctx, app, s, revision)
		}
		_, err = fmt.Fprintf(app.Out, "revision %d, the policy of revision %d, is in force within a second\n", revision, row.Revision)
		return err
	})
}

// row is the revision to go back to: by default where a trial would go, else the newest that
// differs from what is in force.
func (c policyRollback) row(ctx context.Context, s *pgstore.Store) (*pgstore.PolicyRow, error) {
	if c.Revision != 0 {
		return policyShow{Revision: c.Revision}.row(ctx, s)
	}
	rows, err := s.PolicyHistory(ctx, 1000)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 && waits(&rows[0]) {
		return policyShow{Revision: *rows[0].BackTo}.row(ctx, s)
	}
	for i := range rows {
		if rows[i].Source != rows[0].Source && rows[i].WentBack == nil {
			return &rows[i], nil
		}
	}
	return nil, pgstore.ErrNothingBefore
}

// waits says whether the newest revision goes back by itself unless it is confirmed.
func waits(newest *pgstore.PolicyRow) bool {
	return newest.Due != nil && newest.ConfirmedAt == nil && newest.WentBack == nil
}

// unchanged says that what was to be applied is in force, and whether it stays.
func unchanged(ctx context.Context, app App, s *pgstore.Store, revision int64) error {
	rows, err := s.PolicyHistory(ctx, 1)
	if err != nil {
		return err
	}
	if len(rows) == 1 && rows[0].Revision == revision && waits(&rows[0]) {
		_, err = fmt.Fprintf(app.Out, "revision %d is this very policy and goes back at %s: usher policy confirm %d keeps it\n", revision, clock(*rows[0].Due), revision)
		return err
	}
	_, err = fmt.Fprintf(app.Out, "revision %d is this very policy: nothing changed\n", revision)
	return err
}

// standing is what became of a revision, newest first.
func standing(rows []pgstore.PolicyRow, i int) string {
	r := rows[i]
	switch {
	case r.WentBack != nil:
		return fmt.Sprintf("went back as %d", *r.WentBack)
	case i == 0 && r.Due != nil && r.ConfirmedAt == nil:
		return "until " + clock(*r.Due) + " unless confirmed"
	case i == 0:
		return "in force"
	case r.ConfirmedAt != nil:
		return "was confirmed"
	}
	return "-"
}
