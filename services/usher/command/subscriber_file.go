package command

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/subscriber"
)

type usersImport struct {
	CSV importCSV `cmd:"" name:"csv" help:"Take subscribers from a CSV file whose first line names the columns: user, name, token, login, password, packages, sessions, until, ip, blocked, comment."`
}

type importCSV struct {
	source
	File       string `arg:"" help:"The file, - for the standard input." placeholder:"FILE"`
	Realm      string `help:"Subscriber base, as in the check." default:"main"`
	SkipBad    bool   `help:"Take the good lines although others cannot be used."`
	ClusterKey string `help:"File of the cluster's key, where --data is not at hand." placeholder:"FILE"`
	JSON       bool   `help:"Print JSON." name:"json"`
}

// Run imports a file, in one transaction.
func (c importCSV) Run(ctx context.Context, app App) error {
	in, err := c.open(app)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	x, err := subscriber.NewReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	keyer, err := c.keyer(c.ClusterKey)
	if err != nil {
		return err
	}
	if keyer == nil {
		return errors.New("tokens are kept as fingerprints under the cluster's key: give its file with --cluster-key")
	}
	store, err := c.source.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	told := time.Now()
	r, err := store.ImportSubscribers(ctx, pgstore.Import{
		Realm: c.Realm, Keyer: keyer, SkipBad: c.SkipBad,
		Progress: func(lines int) {
			if time.Since(told) > 2*time.Second {
				told = time.Now()
				fmt.Fprintf(app.Err, "%d lines read\n", lines)
			}
		},
	}, x)
	for _, b := range r.BadLines {
		fmt.Fprintf(app.Err, "%s:%d: %s\n", c.File, b.Line, b.Text)
	}
	if more := r.Bad - len(r.BadLines); more > 0 {
		fmt.Fprintf(app.Err, "%s: and %d lines more\n", c.File, more)
	}
	if errors.Is(err, pgstore.ErrBadLines) {
		return fmt.Errorf("%d of %d lines cannot be used, so nothing was imported; --skip-bad takes the others", r.Bad, r.Lines)
	}
	if err != nil {
		return fmt.Errorf("nothing was imported: %w", err)
	}
	if c.JSON {
		return printJSON(app, r)
	}
	_, err = fmt.Fprintf(app.Out, "%d added, %d changed, %d as they were, %d lines left out\n", r.Added, r.Changed, r.Unchanged, r.Bad)
	return err
}

func (c importCSV) open(app App) (io.ReadCloser, error) {
	if c.File != "-" {
		return os.Open(c.File)
	}
	if app.In == nil {
		return io.NopCloser(strings.NewReader("")), nil
	}
	return io.NopCloser(app.In), nil
}

type usersExport struct {
	User exportPerson `cmd:"" default:"withargs" help:"Write everything that is known of a user as one JSON document (the default)."`
	CSV  exportCSV    `cmd:"" name:"csv" help:"Write subscribers as CSV, without tokens and passwords; import takes it again and leaves those as they are."`
}

type exportCSV struct {
	source
	Realm string `help:"Subscriber base, as in the check." default:"main"`
}

// Run writes all subscribers of a realm.
func (c exportCSV) Run(ctx context.Context, app App) error {
	store, err := c.source.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	w := csv.NewWriter(app.Out)
	if err := w.Write([]string{"user", "name", "login", "packages", "sessions", "until", "ip", "blocked", "comment"}); err != nil {
		return err
	}
	err = store.EachSubscriber(ctx, pgstore.SubscriberFilter{Realm: c.Realm, Limit: -1}, func(r *pgstore.SubscriberRow) error {
		ends, blocked, login := "", "no", ""
		if r.ExpiresAt != nil {
			ends = r.ExpiresAt.UTC().Format(time.RFC3339)
		}
		if r.BlockedAt != nil {
			blocked = "yes"
		}
		if r.Login != nil {
			login = *r.Login
		}
		return w.Write([]string{
			r.User, r.Name, login, strings.Join(r.Packages, "|"), strconv.Itoa(r.Sessions), ends, networks(r.Networks), blocked, r.Comment,
		})
	})
	if err != nil {
		return err
	}
	w.Flush()
	return w.Error()
}

func networks(all []netip.Prefix) string {
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return strings.Join(texts, "|")
}
