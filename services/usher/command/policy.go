package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/geo"
	"usher.internal/libs/pgstore"
	"usher.internal/services/usher/policyfile"
)

// policies groups what is done with the policy.
type policies struct {
	Check    policyCheck    `cmd:"" help:"Check a file and run its examples; changes nothing."`
	Apply    policyApply    `cmd:"" help:"Check a file and bring it into force as a new revision."`
	Confirm  policyConfirm  `cmd:"" help:"Keep a revision that was applied with --confirm."`
	Import   policyImports  `cmd:"" help:"Make a policy of another program's configuration."`
	Rollback policyRollback `cmd:"" help:"Bring an older revision into force again."`
	Show     policyShow     `cmd:"" help:"Print the policy in force, or an older revision."`
	History  policyHistory  `cmd:"" help:"List revisions, the newest first."`
}

type policyCheck struct {
	File  string `arg:"" help:"The policy file." placeholder:"FILE"`
	GeoIP string `name:"geoip" help:"Where the country databases are, a directory of *.mmdb or one of them: without any, rules on countries match nothing, and are warned of." placeholder:"DIR"`
	JSON  bool   `help:"Print problems and warnings as JSON." name:"json"`
}

// Run checks a file. Secrets that are not on this machine are a warning here.
func (c policyCheck) Run(ctx context.Context, app App) error {
	data, err := policyfile.Read(c.File)
	if err != nil {
		return err
	}
	p, err := policyfile.Check(ctx, c.File, data, nil)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
	case errors.Is(err, policyfile.ErrSecrets):
		defer p.Close()
		problems = append(problems, config.Problem{File: c.File, Warning: true, Message: err.Error() + "; its examples were not run"})
		err = nil
	case err != nil:
		return err
	default:
		defer p.Close()
	}
	if p != nil {
		problems = append(problems, p.Snapshot.Warnings...)
		if geo.Open(ctx, c.databases(), slog.New(slog.DiscardHandler)).Databases() == 0 {
			problems = append(problems, p.Snapshot.Located...)
		}
	}
	if c.JSON {
		if jerr := printJSON(app, append(config.Problems{}, problems...)); jerr != nil {
			return jerr
		}
	} else {
		printProblems(app.Err, problems)
	}
	if err != nil {
		return errSilent
	}
	if !c.JSON {
		_, err = fmt.Fprintf(app.Out, "%s is good: %d nodes, %d checks, %d rules\n", c.File, len(p.Snapshot.Nodes), len(p.Snapshot.Checks), len(p.Snapshot.Rules))
	}
	return err
}

// databases are the paths to look at for countries.
func (c policyCheck) databases() []string {
	if c.GeoIP == "" {
		return nil
	}
	return []string{c.GeoIP}
}

func printProblems(w io.Writer, problems config.Problems) {
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
}

type policyApply struct {
	source
	File           string        `arg:"" help:"The policy file." placeholder:"FILE"`
	ClusterKey     string        `help:"File of the cluster's key, where the policy lists tokens and --data is not at hand." placeholder:"FILE"`
	Comment        string        `help:"Why, for the history." short:"m"`
	Confirm        time.Duration `help:"Go back to the policy before after this time, such as 10m, unless usher policy confirm comes first." placeholder:"TIME"`
	WithoutSecrets bool          `help:"Apply it although a secret cannot be read on this machine: workers read their own."`
}

// Run applies a file; recorders spread it to all workers and edges within a second.
func (c policyApply) Run(ctx context.Context, app App) error {
	data, err := policyfile.Read(c.File)
	if err != nil {
		return err
	}
	keyer, err := c.keyer(c.ClusterKey)
	if err != nil {
		return err
	}
	p, err := policyfile.Check(ctx, c.File, data, keyer)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		printProblems(app.Err, problems)
		fmt.Fprintln(app.Err, "usher: the policy was not applied")
		return errSilent
	case errors.Is(err, policyfile.ErrSecrets) && !c.WithoutSecrets:
		return fmt.Errorf("%w; put it there, or apply with --without-secrets if only the workers have it", err)
	case err != nil && !errors.Is(err, policyfile.ErrSecrets):
		return err
	}
	defer p.Close()
	printProblems(app.Err, p.Snapshot.Warnings)
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if c.Confirm != 0 {
			return try(ctx, app, s, p, c.Comment, c.Confirm)
		}
		revision, changed, err := policyfile.Apply(ctx, s, p, whoami(), c.Comment)
		if err != nil {
			return err
		}
		if !changed {
			return unchanged(ctx, app, s, revision)
		}
		_, err = fmt.Fprintf(app.Out, "revision %d is in force within a second\n", revision)
		return err
	})
}

// whoami names the operator in the history.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

type policyShow struct {
	source
	Revision int64 `arg:"" optional:"" help:"Number of the revision; the one in force if left out."`
	JSON     bool  `help:"Print JSON." name:"json"`
}

// Run prints a revision's text.
func (c policyShow) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		row, err := c.row(ctx, s)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, revision(*row))
		}
		_, err = fmt.Fprintf(app.Out, "# revision %d, %s, by %s%s\n%s", row.Revision, row.CreatedAt.Format(time.RFC3339), row.Author, colon(row.Comment), row.Source)
		return err
	})
}

func (c policyShow) row(ctx context.Context, s *pgstore.Store) (*pgstore.PolicyRow, error) {
	if c.Revision == 0 {
		row, err := s.CurrentPolicy(ctx)
		if err == nil && row == nil {
			err = errors.New("there is no policy yet: usher policy apply FILE")
		}
		return row, err
	}
	row, err := s.PolicyRevision(ctx, c.Revision)
	if err == nil && row == nil {
		err = fmt.Errorf("there is no revision %d: usher policy history lists those that are", c.Revision)
	}
	return row, err
}

type policyHistory struct {
	source
	list
}

// Run lists revisions.
func (c policyHistory) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.PolicyHistory(ctx, c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			out := make([]any, len(rows))
			for i, r := range rows {
				out[i] = revision(r)
			}
			return printJSON(app, out)
		}
		lines := make([][]string, len(rows))
		for i, r := range rows {
			lines[i] = []string{fmt.Sprint(r.Revision), clock(r.CreatedAt), r.Author, standing(rows, i), oneLine(r.Comment)}
		}
		return table(app, "there is no policy yet: usher policy apply FILE", "REVISION AT AUTHOR STATE COMMENT", lines)
	})
}

// revision is a row as JSON.
func revision(r pgstore.PolicyRow) any {
	return struct {
		Revision  int64     `json:"revision"`
		CreatedAt time.Time `json:"created_at"`
		Author    string    `json:"author"`
		Comment   string    `json:"comment"`
		Source    string    `json:"source"`
		// ConfirmBy is the end of a trial; it was kept at ConfirmedAt, or revision WentBack took its place.
		ConfirmBy   *time.Time `json:"confirm_by,omitempty"`
		ConfirmedAt *time.Time `json:"confirmed_at,omitempty"`
		WentBack    *int64     `json:"went_back,omitempty"`
	}{r.Revision, r.CreatedAt, r.Author, r.Comment, r.Source, r.Due, r.ConfirmedAt, r.WentBack}
}

func colon(comment string) string {
	if comment == "" {
		return ""
	}
	return ": " + oneLine(comment)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
