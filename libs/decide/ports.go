package decide

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/network"
	"usher.internal/libs/subscriber"
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

// NetworkFiles opens lists of networks that stand in files; *network.Files is one.
type NetworkFiles interface {
	// Open gives the same list for the same path. The error is the file's, if it was never read.
	Open(path string) (*network.List, error)
}

// Word is a definite answer of a middleware.
type Word struct {
	Allowed bool
	// Realm is the check's when it said so, "" where that was not written down: a check that has
	// become another realm's did not mean these users.
	Realm, User, SessionName string
	Sessions                 int // the middleware's own limit, 0 if it named none
	At                       time.Time
}

// Grants keeps, for the whole cluster, what middlewares allowed (DESIGN.md §1).
type Grants interface {
	// Find gives the grants that hold for f, of all checks. For a running session, which may
	// have moved, also those of its token and stream at other addresses, and those for the
	// whole session that have ended. It answers within ctx; an error means that nobody can tell.
	Find(ctx context.Context, f For, running bool) ([]Grant, error)
	// Recent gives what this process itself kept or found for f a moment ago, without asking
	// anybody.
	Recent(f For) []Grant
	// Keep stores g in place of what the check granted before for g.For. Once it has returned
	// nil every worker finds it.
	Keep(ctx context.Context, g Grant) error
}

// For is what a grant holds for, besides its check.
type For struct {
	// Who is the fingerprint of what the middleware knows the viewer by: his token, else his query.
	Who    access.Key
	Stream string
	IP     netip.Addr
}

// Grant is a middleware's yes.
type Grant struct {
	Check string
	For
	// From is the address that Keep takes the grant away from; the zero Addr: it is not moved.
	From                     netip.Addr
	Realm, User, SessionName string
	Sessions                 int           // the middleware's own number, 0 if it named none
	Reach                    *access.Reach // into the archive, nil if it did not say
	// At is when the middleware was asked, Until when the grant ends, Recheck when it is
	// to be asked again; zero: never while the grant holds.
	At, Until, Recheck time.Time
	// Whole says that a running session that it opened goes on by it also after Until.
	Whole bool
}

// Subscribers are the operator's own, for checks of type users. They answer known ones from
// memory, also while their store is away: then Found.Away says for how long. The error
// means that nobody can tell.
type Subscribers interface {
	// ByToken and ByLogin find who has the token (its fingerprint) or login in the realm;
	// Found.Account is nil if nobody has.
	ByToken(ctx context.Context, realm string, token access.Key) (Found, error)
	ByLogin(ctx context.Context, realm, login string) (Found, error)
	// Packages are those of the realm.
	Packages(ctx context.Context, realm string) (subscriber.Packages, error)
}

// Found is what is known of a token or login.
type Found struct {
	*subscriber.Account
	// Away is for how long nobody could see whether the account has changed, 0 while somebody can.
	Away time.Duration
}

// errNoStore is what the stores of an Engine say that was given none.
var errNoStore = errors.New("no store is configured")

// nothing is Claims, Known, Grants and Subscribers where there is no store.
type nothing struct{}

func (nothing) Find(context.Context, For, bool) ([]Grant, error) { return nil, nil }
func (nothing) Recent(For) []Grant                               { return nil }
func (nothing) Keep(context.Context, Grant) error                { return nil }

func (nothing) First(context.Context, access.Key, string) (string, error) { return "", errNoStore }
func (nothing) Allowed(context.Context, string, access.Key) (Word, bool, error) {
	return Word{}, false, errNoStore
}
func (nothing) Remember(string, access.Key, Word) {}
func (nothing) ByToken(context.Context, string, access.Key) (Found, error) {
	return Found{}, errNoStore
}
func (nothing) ByLogin(context.Context, string, string) (Found, error) { return Found{}, errNoStore }
func (nothing) Packages(context.Context, string) (subscriber.Packages, error) {
	return nil, errNoStore
}
