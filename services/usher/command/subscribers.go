package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"usher.internal/libs/pgstore"
)

type usersList struct {
	source
	list
	Realm   string `help:"Of this realm only."`
	Package string `help:"Who have this package only."`
	Expired bool   `help:"Whose subscription has ended only."`
	Blocked bool   `help:"Who are blocked only."`
}

// Run lists subscribers.
func (c usersList) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.SubscriberRows(ctx, pgstore.SubscriberFilter{
			Realm: c.Realm, Package: c.Package, Expired: c.Expired, Blocked: c.Blocked, Limit: c.Limit,
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		lines := make([][]string, len(rows))
		for i, r := range rows {
			lines[i] = []string{
				account(r.Realm, &r.User), text(&r.Name), ways(&r), text(some(strings.Join(r.Packages, ","))), number(r.Sessions),
				until(r.ExpiresAt), state(&r),
			}
		}
		return table(app, "no subscribers: usher users add USER --generate-token", "USER NAME COMES-BY PACKAGES SESSIONS UNTIL STATE", lines)
	})
}

func some(s string) *string { return &s }

// ways are by what the subscriber may come.
func ways(r *pgstore.SubscriberRow) string {
	var by []string
	if r.HasToken {
		by = append(by, "token")
	}
	if r.HasPassword {
		by = append(by, "login "+*r.Login)
	}
	if len(by) == 0 {
		return "-"
	}
	return strings.Join(by, ", ")
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func until(at *time.Time) string {
	if at == nil {
		return "never"
	}
	if day := at.UTC(); day.Equal(day.Truncate(24 * time.Hour)) {
		return day.AddDate(0, 0, -1).Format(time.DateOnly) // given as a last day
	}
	return at.UTC().Format("2006-01-02 15:04 MST")
}

// state is whether he may watch now.
func state(r *pgstore.SubscriberRow) string {
	switch {
	case r.BlockedAt != nil:
		return "blocked since " + clock(*r.BlockedAt)
	case r.ExpiresAt != nil && !time.Now().Before(*r.ExpiresAt):
		return "ended"
	}
	return "good"
}

// describe prints a subscriber's own data.
func describe(w io.Writer, r *pgstore.SubscriberRow) {
	fmt.Fprintf(w, "subscriber  %s %s\ncomes by    %s\npackages    %s\nsessions    %s\nuntil       %s\nstate       %s\n",
		account(r.Realm, &r.User), r.Name, ways(r), text(some(strings.Join(r.Packages, ", "))), number(r.Sessions), until(r.ExpiresAt), state(r))
	if len(r.Networks) > 0 {
		fmt.Fprintf(w, "only from   %v\n", r.Networks)
	}
	if r.Comment != "" {
		fmt.Fprintf(w, "comment     %s\n", oneLine(r.Comment))
	}
	fmt.Fprintln(w)
}

// maxSecret bounds what is read as a token or password.
const maxSecret = 8 << 10

// secretOf reads a secret's file, "-" for the standard input, without the line's end.
func secretOf(app App, what, path string) (string, error) {
	in := app.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	if in == nil {
		in = strings.NewReader("")
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if len(raw) > maxSecret {
		return "", fmt.Errorf("%s holds more than %d bytes", what, maxSecret)
	}
	secret, _, _ := strings.Cut(string(raw), "\n")
	if secret = strings.TrimSuffix(secret, "\r"); secret == "" {
		return "", fmt.Errorf("%s is empty", what)
	}
	return secret, nil
}
