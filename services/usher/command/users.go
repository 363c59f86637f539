package command

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/subscriber"
)

// users groups what is asked about users, and what is done with own subscribers.
type users struct {
	Show     usersShow     `cmd:"" help:"Show a user: as a subscriber, his sessions and latest decisions."`
	Add      usersAdd      `cmd:"" help:"Add an own subscriber, for checks of type users."`
	Set      usersSet      `cmd:"" help:"Change an own subscriber."`
	List     usersList     `cmd:"" help:"List own subscribers."`
	Remove   usersRemove   `cmd:"" help:"Remove an own subscriber and end his sessions."`
	Import   usersImport   `cmd:"" help:"Add and change own subscribers from a file."`
	Playlist usersPlaylist `cmd:"" help:"Write a subscriber's playlist (M3U)."`
	Export   usersExport   `cmd:"" help:"Write everything that is known of a user, or own subscribers as CSV."`
	Forget   usersForget   `cmd:"" help:"Take a user out of everything that is kept of him."`
	Block    usersBlock    `cmd:"" help:"Keep a user out for good: his sessions end, and what middlewares granted to him."`
	Unblock  usersUnblock  `cmd:"" help:"Let a blocked user in again."`
}

// account is what can be said of a subscriber. What is left out stays as it is.
type accountFlags struct {
	Name             *string `help:"A label for people."`
	Token            string  `help:"His token, 8 bytes at least. Others on this machine can read it here: better --token-file." placeholder:"T"`
	TokenFile        string  `help:"File with his token, - for the standard input." placeholder:"FILE"`
	GenerateToken    bool    `help:"Make a token and print it, this once."`
	Login            *string `help:"His login; the user's id where only a password is given."`
	PasswordFile     string  `help:"File with his password, - for the standard input." placeholder:"FILE"`
	PasswordStdin    bool    `help:"Read his password from the standard input."`
	GeneratePassword bool    `help:"Make a password and print it, this once."`
	Packages         *string `help:"What he may watch, such as basic,sport; \"\" for nothing. A new subscriber gets the package all." placeholder:"A,B"`
	Sessions         *int    `help:"His own limit of sessions; 0 leaves it to the rule." placeholder:"N"`
	Until            *string `help:"His last day (UTC) or moment, such as 2026-12-31; never." placeholder:"DATE"`
	Network          *string `help:"The only addresses or networks that he may watch from; \"\" for any." placeholder:"A,B"`
	Blocked          *string `help:"yes or no." placeholder:"YES|NO"`
	Comment          *string `help:"A note."`
	ClusterKey       string  `help:"File of the cluster's key, where --data is not at hand." placeholder:"FILE"`
}

// made are the secrets that the command made up, to be shown once.
type made struct{ token, password string }

func (m made) print(app App) {
	if m.token != "" {
		fmt.Fprintf(app.Out, "token: %s\n", m.token)
	}
	if m.password != "" {
		fmt.Fprintf(app.Out, "password: %s\n", m.password)
	}
	if m != (made{}) {
		fmt.Fprintln(app.Err, "this is shown once: only a fingerprint or hash of it is kept")
	}
}

// edit reads the flags.
func (f *accountFlags) edit(app App, s source, user string) (e pgstore.SubscriberEdit, m made, err error) {
	e = pgstore.SubscriberEdit{Name: f.Name, Login: f.Login, Sessions: f.Sessions, Comment: f.Comment}
	err = errors.Join(f.token(app, s, &e, &m), f.password(app, user, &e, &m), f.values(&e))
	return e, m, err
}

func (f *accountFlags) token(app App, s source, e *pgstore.SubscriberEdit, m *made) error {
	token := f.Token
	switch {
	case f.GenerateToken && (f.Token != "" || f.TokenFile != ""), f.Token != "" && f.TokenFile != "":
		return errors.New("choose one of --token, --token-file and --generate-token")
	case f.GenerateToken:
		m.token = subscriber.NewToken()
		token = m.token
	case f.TokenFile != "":
		var err error
		if token, err = secretOf(app, "--token-file", f.TokenFile); err != nil {
			return err
		}
	case f.Token == "":
		return nil
	}
	if err := subscriber.CheckToken(token); err != nil {
		return fmt.Errorf("the token: %w", err)
	}
	k, err := s.keyer(f.ClusterKey)
	if err != nil {
		return err
	}
	if k == nil {
		return errors.New("tokens are kept as fingerprints under the cluster's key: give its file with --cluster-key")
	}
	key := k.Fingerprint(token)
	e.Token = &key
	return nil
}

func (f *accountFlags) password(app App, user string, e *pgstore.SubscriberEdit, m *made) error {
	file := f.PasswordFile
	if f.PasswordStdin {
		file = "-"
	}
	var password string
	switch {
	case f.GeneratePassword && file != "" || f.PasswordStdin && f.PasswordFile != "":
		return errors.New("choose one of --password-file, --password-stdin and --generate-password")
	case file == "-" && f.TokenFile == "-":
		return errors.New("token and password cannot both come from the standard input")
	case f.GeneratePassword:
		m.password = subscriber.NewToken()[:16]
		password = m.password
	case file != "":
		var err error
		if password, err = secretOf(app, "the password's file", file); err != nil {
			return err
		}
	default:
		return nil
	}
	if password == "" || len(password) > subscriber.MaxPassword {
		return fmt.Errorf("the password: want 1 to %d bytes", subscriber.MaxPassword)
	}
	hash := subscriber.HashPassword(password)
	e.Password = &hash
	if e.Login == nil {
		e.Login = &user
	}
	return nil
}

// values reads the flags that hold no secret.
func (f *accountFlags) values(e *pgstore.SubscriberEdit) error {
	var errs []error
	if e.Login != nil && *e.Login != "" {
		if err := subscriber.CheckLogin(*e.Login); err != nil {
			errs = append(errs, fmt.Errorf("login %q: %w", *e.Login, err))
		}
	}
	if f.Packages != nil {
		names := subscriber.SplitList(*f.Packages)
		e.Packages = &names
	}
	if f.Sessions != nil && (*f.Sessions < 0 || *f.Sessions > 1_000_000) {
		errs = append(errs, errors.New("--sessions: want 0 to 1000000"))
	}
	if f.Until != nil {
		at, err := subscriber.ParseUntil(*f.Until)
		if err != nil {
			errs = append(errs, fmt.Errorf("--until %q: %w", *f.Until, err))
		}
		e.Expires = &at
	}
	if f.Network != nil {
		networks, err := subscriber.ParseNetworks(*f.Network)
		if err != nil {
			errs = append(errs, fmt.Errorf("--network %q: %w", *f.Network, err))
		}
		networks = append([]netip.Prefix{}, networks...)
		e.Networks = &networks
	}
	if f.Blocked != nil {
		blocked := strings.EqualFold(*f.Blocked, "yes")
		if !blocked && !strings.EqualFold(*f.Blocked, "no") {
			errs = append(errs, errors.New("--blocked: want yes or no"))
		}
		e.Blocked = &blocked
	}
	return errors.Join(errs...)
}

type usersAdd struct {
	source
	accountFlags
	User  string `arg:"" help:"The user's id."`
	Realm string `help:"Subscriber base, as in the check." default:"main"`
}

// Run adds a subscriber.
func (c usersAdd) Run(ctx context.Context, app App) error {
	if err := subscriber.CheckUser(c.User); err != nil {
		return fmt.Errorf("user %q: %w", c.User, err)
	}
	e, m, err := c.edit(app, c.source, c.User)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		err := s.AddSubscriber(ctx, c.Realm, c.User, e)
		if errors.Is(err, pgstore.ErrSubscriberExists) {
			return fmt.Errorf("%w; usher users set changes him", err)
		}
		if err != nil {
			return withHint(err)
		}
		fmt.Fprintf(app.Out, "%s is added; whoever is asked knows within a second\n", account(c.Realm, &c.User))
		m.print(app)
		return nil
	})
}

type usersSet struct {
	source
	accountFlags
	User    string `arg:"" help:"The user's id."`
	Realm   string `help:"Subscriber base, as in the check." default:"main"`
	NoToken bool   `help:"Take his token away."`
	NoLogin bool   `help:"Take his login and password away."`
}

// Run changes a subscriber. A block ends his sessions at once, anything else acts when they are
// decided again.
func (c usersSet) Run(ctx context.Context, app App) error {
	e, m, err := c.edit(app, c.source, c.User)
	if err != nil {
		return err
	}
	if c.NoToken {
		if e.Token != nil {
			return errors.New("--no-token takes the token away that another flag gives")
		}
		e.Token = new(access.Key)
	}
	if c.NoLogin {
		if e.Login != nil {
			return errors.New("--no-login takes the login away that another flag gives")
		}
		e.Login = new(string)
	}
	if e == (pgstore.SubscriberEdit{}) {
		return errors.New("say what to change, such as --sessions 2; usher users set --help lists it")
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := s.SetSubscriber(ctx, c.Realm, c.User, e); err != nil {
			return withHint(err)
		}
		fmt.Fprintf(app.Out, "%s is changed: for new questions within a second, for running sessions when they are decided again\n", account(c.Realm, &c.User))
		m.print(app)
		if e.Blocked != nil && *e.Blocked {
			return endSessions(ctx, app, s, c.Realm, c.User)
		}
		return nil
	})
}

type usersRemove struct {
	source
	User  string `arg:"" help:"The user's id."`
	Realm string `help:"Subscriber base, as in the check." default:"main"`
}

// Run removes a subscriber; what he watched stays in the history.
func (c usersRemove) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		if err := s.RemoveSubscriber(ctx, c.Realm, c.User); err != nil {
			return err
		}
		fmt.Fprintf(app.Out, "%s is removed\n", account(c.Realm, &c.User))
		return endSessions(ctx, app, s, c.Realm, c.User)
	})
}

// believed is how long a worker may let somebody in whom it does not know to be gone.
const believed = 1500 * time.Millisecond

// endSessions kills a user's sessions, and those that were being opened meanwhile.
func endSessions(ctx context.Context, app App, s *pgstore.Store, realm, user string) error {
	ended := 0
	for round := range 2 {
		if round > 0 {
			select {
			case <-time.After(believed):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		rows, err := s.Sessions(ctx, pgstore.SessionFilter{Realm: realm, User: user, Limit: 100_000})
		if err != nil {
			return err
		}
		for _, r := range rows {
			killed, err := s.KillSession(ctx, r.ID, 0)
			if err != nil {
				return err
			}
			if killed != nil {
				ended++
			}
		}
	}
	_, err := fmt.Fprintf(app.Out, "%d of his sessions were ended\n", ended)
	return err
}

// withHint says what to do about a refusal.
func withHint(err error) error {
	if errors.Is(err, pgstore.ErrNoPackage) {
		return fmt.Errorf("%w; usher packages list shows those that are", err)
	}
	return err
}
