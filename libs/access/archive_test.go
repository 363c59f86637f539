package access

import (
	"testing"
	"time"
)

func mustReach(t *testing.T, text string) *Reach {
	t.Helper()
	r, err := ParseReach(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReachMeets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ word, own, most, want string }{
		{"", "", "", ""},
		{"", "depth=7d,length=4h", "", "depth=7d,length=4h0m0s"},
		{"depth=14d", "depth=7d,length=4h", "", "depth=14d,length=4h0m0s"},
		{"depth=14d", "depth=7d", "depth=10d", "depth=10d"},
		{"none", "depth=7d", "", "none"},
		{"", "", "none", "none"},
		{"window=1700000000-1700001000", "", "window=1700000500-", "window=1700000500-1700001000"},
		{"window=1700000000-1700001000", "", "window=1700001000-", "none"},
		{"window=1700000000-1700001000,window=1700002000-", "", "window=1700000900-1700003000", "window=1700000900-1700001000,window=1700002000-1700003000"},
	} {
		got := mustReach(t, c.word).Or(mustReach(t, c.own)).And(mustReach(t, c.most))
		if got.String() != c.want {
			t.Errorf("%q or %q, at most %q, is %q, want %q", c.word, c.own, c.most, got, c.want)
		}
	}
}

func TestReachForms(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"nothing", "depth", "depth=", "depth=0s", "depth=-7d", "depth=9999d", "window=", "window=-", "window=5-6",
		"window=1700000000", "window=1700001000-1700000000", "window=1700000000-99999999999", "depth=7d;length=4h", "none,depth=7d"} {
		if r, err := ParseReach(text); err == nil {
			t.Errorf("%q is read as %q", text, r)
		}
	}
}

func TestAPieceIsLiveWhileItIsYoung(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	piece := Archive{Kind: Piece, Start: now.Unix() - 305, Length: 6}
	if got := piece.Aged(now); got.Kind != Live {
		t.Errorf("a segment of 299 s ago is %+v, want live", got)
	}
	if got := piece.Aged(now.Add(2 * time.Second)); got != piece {
		t.Errorf("a segment of 301 s ago is %+v, want %+v", got, piece)
	}
}
