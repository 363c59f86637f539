package subscriber

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Options are the keys of a check of type users.
type Options struct {
	// AllowPassword lets viewers in by login and password: where Login says, and as a token
	// of the form LOGIN:PASSWORD.
	AllowPassword bool `yaml:"allow_password"`
	// Login is where they stand in the viewer's request: one place for LOGIN:PASSWORD, or two
	// for each of them. query:NAME and path:N.
	Login []string `yaml:"login"`
	// IgnorePackages lets every subscriber watch all streams of the rule.
	IgnorePackages bool `yaml:"ignore_packages"`
	// Playlist is what stands in their playlists, nil if there are none.
	Playlist *Playlist `yaml:"playlist"`
}

// NewOptions gives the defaults: tokens alone.
func NewOptions() *Options { return &Options{} }

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	if len(o.Login) > 0 && !o.AllowPassword {
		errs = append(errs, errors.New("login is where login and password stand: it needs allow_password: true"))
	}
	if _, err := o.Places(); err != nil {
		errs = append(errs, err)
	}
	if o.Playlist != nil {
		errs = append(errs, o.Playlist.Validate())
		if o.IgnorePackages && len(o.Playlist.Channels) == 0 {
			errs = append(errs, errors.New("playlist: channels are missing: with ignore_packages nothing else says which streams there are"))
		}
	}
	return errors.Join(errs...)
}

// Places are Login, read. Without any it is query:auth, as Astra's users have it.
func (o *Options) Places() ([]Place, error) {
	texts := o.Login
	if len(texts) == 0 {
		texts = []string{"query:auth"}
	}
	if len(texts) > 2 {
		return nil, errors.New("login has more than two places: one for LOGIN:PASSWORD, or one for each of them")
	}
	places := make([]Place, len(texts))
	for i, text := range texts {
		kind, name, _ := strings.Cut(text, ":")
		n, err := strconv.Atoi(name)
		switch {
		case kind == "query" && name != "" && !strings.ContainsAny(name, "=&?# "):
			places[i] = Place{parameter: name}
		case kind == "path" && err == nil && n >= 1 && n <= 32 && strconv.Itoa(n) == name:
			places[i] = Place{element: n}
		default:
			return nil, fmt.Errorf("login: %q is no place; want query:NAME or path:N", text)
		}
	}
	return places, nil
}
