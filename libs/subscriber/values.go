package subscriber

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// NewToken makes a token that nobody can guess: 32 characters that stand in any URL as they are.
func NewToken() string {
	raw := make([]byte, 24)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// CheckToken says what is wrong with a token that an operator gives. "" is none.
func CheckToken(token string) error {
	switch {
	case token == "":
		return nil
	case len(token) < 8 || len(token) > access.MaxToken:
		return fmt.Errorf("want 8 to %d bytes: shorter ones can be guessed", access.MaxToken)
	case strict(token, nil) != nil || strings.ContainsAny(token, " \t"):
		return errors.New("want no spaces and no control characters")
	}
	return nil
}

// ParseUntil reads when a subscription ends: a time as in 2026-12-31T20:00:00Z, or a day, which
// is its last (UTC); "" and never are the zero time.
func ParseUntil(text string) (time.Time, error) {
	if text == "" || strings.EqualFold(text, "never") {
		return time.Time{}, nil
	}
	if d, err := time.Parse(time.DateOnly, text); err == nil {
		return d.AddDate(0, 0, 1), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() > 9999 {
		return time.Time{}, errors.New("want a day such as 2026-12-31, or a time such as 2026-12-31T20:00:00Z")
	}
	return t.UTC(), nil
}

// ParseNetworks reads addresses and networks between commas, semicolons or bars.
func ParseNetworks(text string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, one := range SplitList(text) {
		p, err := config.ParsePrefix(one)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if len(all) > 64 {
		return nil, errors.New("want at most 64 networks")
	}
	return all, nil
}

// SplitList reads words between commas, semicolons or bars, each once, in their order.
func SplitList(text string) []string {
	words := []string{}
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(",;|", r) }) {
		if w = strings.TrimSpace(w); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return words
}

func shorter(text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("want at most %d bytes", limit)
	}
	return nil
}
