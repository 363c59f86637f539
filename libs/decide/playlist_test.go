package decide_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
)

func TestPlaylist(t *testing.T) {
	t.Parallel()
	b := usersBench(t)
	ip := netip.MustParseAddr("203.0.113.7")
	for name, c := range map[string]struct {
		check, token string
		reason       access.Reason
		holds        string
	}{
		"a subscriber's":       {"lists", "token-of-anna", "", "https://tv.example.com/news/index.m3u8?token=token-of-anna\n"},
		"by login":             {"lists", "anna:pass:word", "", "token=anna%3Apass%3Aword\n"},
		"wrong password":       {"lists", "anna:x", access.BadToken, ""},
		"nobody's token":       {"lists", "stranger-token", access.BadToken, ""},
		"no token":             {"lists", "", access.BadToken, ""},
		"blocked":              {"lists", "token-of-carl", access.Blocked, ""},
		"ended":                {"lists", "token-of-dora", access.Expired, ""},
		"another address":      {"lists", "token-of-emil", access.WrongIP, ""},
		"no package":           {"lists", "token-of-none", access.NoPackage, ""},
		"not for the public":   {"private", "token-of-anna", access.NoRule, ""},
		"no playlists at all":  {"own", "token-of-anna", access.NoRule, ""},
		"a verifier":           {"site", "token-of-anna", access.NoRule, ""},
		"no check of the name": {"x", "token-of-anna", access.NoRule, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := b.engine.Playlist(t.Context(), c.check, c.token, ip)
			if err != nil || p.Reason != c.reason || !strings.Contains(string(p.Body), c.holds) || (len(p.Body) > 0) != (c.holds != "") {
				t.Errorf("Playlist = %s (%s), %v:\n%s\nwant %s, %q", p.Reason, p.Text, err, p.Body, c.reason, c.holds)
			}
			if c.token != "" && strings.Contains(p.Text, c.token) {
				t.Errorf("the text holds the token: %s", p.Text)
			}
		})
	}
	t.Run("while the store is away", func(t *testing.T) {
		t.Parallel()
		b := usersBench(t)
		b.own.Down(true)
		if _, err := b.engine.Playlist(t.Context(), "lists", "token-of-anna", ip); !errors.Is(err, decide.ErrNoPlaylist) {
			t.Errorf("Playlist: %v, want ErrNoPlaylist", err)
		}
	})
}
