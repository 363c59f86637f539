package decide

import (
	"context"
	"errors"
	"net/netip"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

// Playlist is a subscriber's, or why he gets none.
type Playlist struct {
	// Reason is "" if there is one. access.NoRule: the check has none, or none for the public.
	Reason access.Reason
	// Text says why, in words for an operator, without the token.
	Text string
	Name string // of the file, without its ending
	Body []byte
}

// ErrNoPlaylist means that nobody can tell now whose token it is.
var ErrNoPlaylist = errors.New("the subscribers' store could not be asked")

// Playlist writes the playlist of whom the token belongs to, for an edge that hands it out to
// that address. Nothing of the request but the token stands in it.
func (e *Engine) Playlist(ctx context.Context, name, token string, ip netip.Addr) (Playlist, error) {
	c := e.checks[name]
	if c == nil || c.accounts == nil || c.accounts.Playlist == nil || !c.accounts.Playlist.Public {
		return Playlist{Reason: access.NoRule, Text: "no check of that name has public playlists"}, nil
	}
	a := c.accounts
	found, presented, err := e.subscriber(ctx, a, &access.Request{Token: token})
	switch {
	case errors.Is(err, errNotGood), err == nil && (!presented || found.Account == nil):
		return Playlist{Reason: access.BadToken, Text: "no subscriber of realm " + a.realm + " has this token"}, nil
	case err != nil:
		return Playlist{}, ErrNoPlaylist
	}
	if d := found.Refused(ip, e.deps.Now()); d != nil {
		return Playlist{Reason: d.Reason, Text: d.Text}, nil
	}
	var packages subscriber.Packages
	if !a.IgnorePackages {
		if packages, err = e.deps.Subscribers.Packages(ctx, a.realm); err != nil {
			return Playlist{}, ErrNoPlaylist
		}
		if packages == nil {
			packages = subscriber.Packages{}
		}
	}
	body, err := a.Playlist.Write(found.Account, packages, token)
	if err != nil {
		return Playlist{Reason: access.NoPackage, Text: err.Error()}, nil
	}
	return Playlist{Name: subscriber.FileName(found.Account), Body: body}, nil
}
