package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
)

type usersPlaylist struct {
	source
	User          string `arg:"" help:"The user's id."`
	Realm         string `help:"Subscriber base, as in the check." default:"main"`
	Base          string `help:"Address of a stream, such as https://tv.example.com/{stream}/index.m3u8?token={token}; the playlist of the policy's check if left out." placeholder:"URL"`
	Check         string `help:"The check whose playlist is written, where the realm has several." placeholder:"NAME"`
	Token         string `help:"His token. Others on this machine can read it here: better --token-file." placeholder:"T"`
	TokenFile     string `help:"File with his token, - for the standard input." placeholder:"FILE"`
	GenerateToken bool   `help:"Give him a new token; the one he has ends."`
	ClusterKey    string `help:"File of the cluster's key, where --data is not at hand." placeholder:"FILE"`
}

// Run writes a subscriber's playlist.
func (c usersPlaylist) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		list, ignore, err := c.playlist(ctx, s)
		if err != nil {
			return err
		}
		row, err := s.SubscriberRow(ctx, c.Realm, c.User)
		if err != nil {
			return err
		}
		if row == nil {
			return fmt.Errorf("%s: %w", c.User, pgstore.ErrNoSubscriber)
		}
		token, err := c.token(ctx, app, s, row, strings.Contains(list.URL, "{token}"))
		if err != nil {
			return err
		}
		var packages subscriber.Packages
		if !ignore {
			if packages, err = s.Subscribers().Packages(ctx, c.Realm); err != nil {
				return err
			}
			packages = maps.Clone(packages)
			if packages == nil {
				packages = subscriber.Packages{}
			}
		}
		text, err := list.Write(&subscriber.Account{User: row.User, Packages: row.Packages}, packages, token)
		if err != nil {
			return err
		}
		_, err = app.Out.Write(text)
		return err
	})
}

// playlist is what stands in it: by --base, else by the policy in force.
func (c usersPlaylist) playlist(ctx context.Context, s *pgstore.Store) (list *subscriber.Playlist, ignore bool, err error) {
	row, err := s.CurrentPolicy(ctx)
	if err != nil {
		return nil, false, err
	}
	checks := map[string]*subscriber.Options{}
	if row != nil {
		snapshot, err := policy.Parse(fmt.Sprintf("policy revision %d", row.Revision), []byte(row.Source), decide.Kinds())
		if err != nil {
			return nil, false, fmt.Errorf("the policy in force cannot be used by this version: %w", err)
		}
		for name, check := range snapshot.Checks {
			o, own := check.Options.(*subscriber.Options)
			if own && check.Realm == c.Realm && o.Playlist != nil && (c.Check == "" || c.Check == name) {
				checks[name] = o
			}
		}
	}
	names := slices.Sorted(maps.Keys(checks))
	list = new(subscriber.Playlist)
	switch {
	case len(names) == 1:
		own := *checks[names[0]].Playlist
		list, ignore = &own, checks[names[0]].IgnorePackages
	case len(names) > 1:
		return nil, false, fmt.Errorf("several checks have playlists for realm %s: choose one with --check: %s", c.Realm, strings.Join(names, ", "))
	case c.Base == "" || c.Check != "":
		return nil, false, errors.New("the policy has no such playlist (checks: NAME: {type: users, playlist: {url: …}}): give --base https://tv.example.com/{stream}/index.m3u8?token={token}")
	}
	if c.Base != "" {
		list.URL = c.Base
		if !strings.Contains(c.Base, "{stream}") {
			list.URL = strings.TrimRight(c.Base, "/") + "/{stream}/index.m3u8?token={token}"
		}
	}
	return list, ignore, list.Validate()
}

// token is what stands in the playlist. It cannot be read back, so that it must be given or made.
func (c usersPlaylist) token(ctx context.Context, app App, s *pgstore.Store, row *pgstore.SubscriberRow, needed bool) (string, error) {
	flags := accountFlags{Token: c.Token, TokenFile: c.TokenFile, GenerateToken: c.GenerateToken, ClusterKey: c.ClusterKey}
	var e pgstore.SubscriberEdit
	var m made
	if c.TokenFile != "" {
		var err error
		if flags.Token, err = secretOf(app, "--token-file", c.TokenFile); err != nil {
			return "", err
		}
		flags.TokenFile = ""
	}
	if err := flags.token(app, c.source, &e, &m); err != nil {
		return "", err
	}
	switch {
	case m.token != "":
		if err := s.SetSubscriber(ctx, c.Realm, c.User, e); err != nil {
			return "", err
		}
		fmt.Fprintln(app.Err, "he has a new token, which stands in the playlist; the one he had is no longer good")
		return m.token, nil
	case e.Token != nil:
		return flags.Token, c.check(ctx, s, *e.Token)
	case needed:
		return "", fmt.Errorf("only a fingerprint of %s's token is kept: give it with --token-file, or make a new one with --generate-token", row.User)
	}
	return "", nil
}

// check makes sure that the token is his.
func (c usersPlaylist) check(ctx context.Context, s *pgstore.Store, token access.Key) error {
	found, err := s.Subscribers().ByToken(ctx, c.Realm, token)
	if err != nil {
		return err
	}
	if found.Account == nil || found.User != c.User {
		return fmt.Errorf("that is not %s's token", c.User)
	}
	return nil
}
