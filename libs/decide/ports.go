package decide

import (
	"context"
	"errors"
	"time"

	"usher.internal/libs/access"
)

// Claims remembers, for the whole cluster, the first value seen with a name.
type Claims interface {
	// First stores value under name if nothing is there, and returns what is there
	// then. It answers within ctx; an error means that nobody can tell.
	First(ctx context.Context, name access.Key, value string) (first string, err error)
}

// Known remembers what middlewares said last of whom (DESIGN.md §3, grace).
type Known interface {
	// Allowed is the last word of the check on who, and whether there is one.
	Allowed(ctx context.Context, check string, who access.Key) (Word, bool, error)
	// Remember keeps w as the last word; a no that names no user leaves the user of the word
	// before it. It does not block and may lose words.
	Remember(check string, who access.Key, w Word)
}

// Word is a definite answer of a middleware.
type Word struct {
	Allowed           bool
	User, SessionName string
	Sessions          int // the middleware's own limit, 0 if it named none
	At                time.Time
}

// errNoStore is what the stores of an Engine say that was given none.
var errNoStore = errors.New("no store is configured")

// nothing is Claims and Known where there is no store.
type nothing struct{}

func (nothing) First(context.Context, access.Key, string) (string, error) { return "", errNoStore }
func (nothing) Allowed(context.Context, string, access.Key) (Word, bool, error) {
	return Word{}, false, errNoStore
}
func (nothing) Remember(string, access.Key, Word) {}
