package subscriber

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"usher.internal/libs/config"
)

// MaxPlaylist is the largest playlist in bytes: it travels in one message of NATS.
const MaxPlaylist = 768 << 10

// ErrPlaylist is a playlist that cannot be written; its text says why.
var ErrPlaylist = errors.New("no playlist")

// Playlist says what stands in subscribers' playlists.
type Playlist struct {
	// URL of a stream: {stream}, {token} and {user} are filled in.
	URL string `yaml:"url"`
	// Public lets edges hand playlists out at /v1/playlist/<check>/<token>.
	Public bool `yaml:"public"`
	// Trust are proxies before the edges whose X-Forwarded-For is believed.
	Trust []config.Prefix `yaml:"trust"`
	// Channels in their order; without any, the streams that packages name exactly.
	Channels []Channel `yaml:"channels"`
}

// Channel is one entry of a playlist.
type Channel struct {
	Stream string `yaml:"stream"`
	Name   string `yaml:"name"`  // what a player shows; the stream's name if empty
	Group  string `yaml:"group"` // group-title
	Logo   string `yaml:"logo"`  // address of a picture
	Guide  string `yaml:"guide"` // tvg-id: its name in the programme guide
}

var placeholder = regexp.MustCompile(`\{[^}]*\}?|\}`)

// Validate says what is wrong with the playlist's options.
func (p *Playlist) Validate() error {
	var errs []error
	u, err := url.Parse(placeholder.ReplaceAllString(p.URL, "x"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(p.URL, " \"\t\r\n") {
		errs = append(errs, errors.New("playlist: url: want http://host/{stream}/index.m3u8?token={token}, or https"))
	}
	for _, name := range placeholder.FindAllString(p.URL, -1) {
		if !slices.Contains([]string{"{stream}", "{token}", "{user}"}, name) {
			errs = append(errs, fmt.Errorf("playlist: url: %s is not known; there are {stream}, {token} and {user}", name))
		}
	}
	if !strings.Contains(p.URL, "{stream}") {
		errs = append(errs, errors.New("playlist: url: {stream} is missing"))
	}
	for i, c := range p.Channels {
		if !Exact(c.Stream) {
			errs = append(errs, fmt.Errorf("playlist: channels[%d]: stream: want the name of one stream", i))
		}
		for _, text := range []string{c.Name, c.Group, c.Logo, c.Guide} {
			if strict(text, nil) != nil {
				errs = append(errs, fmt.Errorf("playlist: channels[%d]: holds control characters", i))
			}
		}
	}
	return errors.Join(errs...)
}

// Write writes the playlist of an account that may watch these packages (nil: everything).
// token is what stands for {token}. The error is ErrPlaylist.
func (p *Playlist) Write(a *Account, packages Packages, token string) ([]byte, error) {
	var b strings.Builder
	b.WriteString("#EXTM3U\n")
	n := 0
	for _, c := range p.channels(a, packages) {
		if packages != nil && packages.Has(a, c.Stream) == nil {
			continue
		}
		c.write(&b)
		b.WriteString(p.address(c.Stream, token, a.User))
		b.WriteByte('\n')
		n++
		if b.Len() > MaxPlaylist {
			return nil, fmt.Errorf("%w: it would be larger than %d KiB", ErrPlaylist, MaxPlaylist>>10)
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: none of the channels is in a package of subscriber %s; list channels in the policy, or name streams exactly in packages", ErrPlaylist, a.User)
	}
	return []byte(b.String()), nil
}

// channels are those of the policy, else one for each stream that a package names exactly.
func (p *Playlist) channels(a *Account, packages Packages) []Channel {
	if len(p.Channels) > 0 {
		return p.Channels
	}
	var streams []string
	for _, name := range a.Packages {
		if pack := packages[name]; pack != nil {
			for stream := range pack.exact {
				streams = append(streams, stream)
			}
		}
	}
	slices.Sort(streams)
	streams = slices.Compact(streams)
	all := make([]Channel, len(streams))
	for i, s := range streams {
		all[i] = Channel{Stream: s}
	}
	return all
}

func (c *Channel) write(b *strings.Builder) {
	b.WriteString("#EXTINF:-1")
	for _, x := range [...]struct{ name, value string }{{"tvg-id", c.Guide}, {"tvg-logo", c.Logo}, {"group-title", c.Group}} {
		if x.value != "" {
			fmt.Fprintf(b, " %s=\"%s\"", x.name, strings.ReplaceAll(x.value, `"`, "'"))
		}
	}
	name := c.Name
	if name == "" {
		name = c.Stream
	}
	b.WriteString("," + name + "\n")
}

func (p *Playlist) address(stream, token, user string) string {
	elements := strings.Split(stream, "/")
	for i, e := range elements {
		elements[i] = escape(e)
	}
	return strings.NewReplacer("{stream}", strings.Join(elements, "/"), "{token}", escape(token), "{user}", escape(user)).Replace(p.URL)
}

// escape percent-encodes all that does not stand for itself both in paths and in queries.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// FileName is the name of the account's playlist file, without its ending.
func FileName(a *Account) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r == '@':
			return r
		}
		return '_'
	}, a.User)
	return strings.TrimLeft(name[:min(len(name), 64)], ".")
}
