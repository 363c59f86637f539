package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

// What can be wrong with a change of subscribers and packages.
var (
	ErrSubscriberExists = errors.New("there is such a subscriber already")
	ErrNoSubscriber     = errors.New("there is no such subscriber")
	ErrNoPackage        = errors.New("there is no such package")
	ErrPackageExists    = errors.New("there is such a package already")
	ErrPackageInUse     = errors.New("subscribers have this package")
	ErrTokenTaken       = errors.New("another subscriber of the realm has this token")
	ErrLoginTaken       = errors.New("another subscriber of the realm has this login")
)

// SubscriberEdit is what to change of a subscriber; nil leaves a field as it is.
type SubscriberEdit struct {
	Name     *string
	Token    *access.Key // fingerprint; zero removes it
	Login    *string     // "" removes it, and the password with it
	Password *string     // PHC text; "" removes it
	Packages *[]string
	Sessions *int
	Expires  *time.Time // zero: never
	Networks *[]netip.Prefix
	Blocked  *bool
	Comment  *string
}

const addSubscriberSQL = `
INSERT INTO usher.subscriber (realm, user_id)
VALUES (@realm, @user)
ON CONFLICT DO NOTHING`

// AddSubscriber makes a subscriber. Without packages he gets subscriber.AllPackage. The error
// wraps ErrSubscriberExists, ErrNoPackage, ErrTokenTaken or ErrLoginTaken; then nothing was done.
func (s *Store) AddSubscriber(ctx context.Context, realm, user string, e SubscriberEdit) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, addSubscriberSQL, pgx.NamedArgs{"realm": realm, "user": user})
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrSubscriberExists
		}
		if e.Packages == nil {
			if err := makeAllPackage(ctx, tx, realm); err != nil {
				return err
			}
			e.Packages = &[]string{subscriber.AllPackage}
		}
		return editSubscriber(ctx, tx, realm, user, e)
	})
	return editError("adding subscriber "+user, err)
}

// SetSubscriber changes a subscriber. The error wraps ErrNoSubscriber, ErrNoPackage,
// ErrTokenTaken or ErrLoginTaken; then nothing was done.
func (s *Store) SetSubscriber(ctx context.Context, realm, user string, e SubscriberEdit) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return editSubscriber(ctx, tx, realm, user, e)
	})
	return editError("changing subscriber "+user, err)
}

const makeAllPackageSQL = `
INSERT INTO usher.package (realm, name, streams, comment)
VALUES (@realm, @name, '{**}', 'every stream')
ON CONFLICT DO NOTHING`

func makeAllPackage(ctx context.Context, tx pgx.Tx, realm string) error {
	_, err := tx.Exec(ctx, makeAllPackageSQL, pgx.NamedArgs{"realm": realm, "name": subscriber.AllPackage})
	return err
}

const setSubscriberSQL = `
UPDATE usher.subscriber
   SET name = COALESCE(@name, name),
       token = CASE WHEN @set_token::boolean THEN @token::uuid ELSE token END,
       login = CASE WHEN @set_login::boolean THEN @login::text ELSE login END,
       password = CASE WHEN @set_password::boolean THEN @password::text
                       WHEN @set_login::boolean AND @login::text IS NULL THEN NULL
                       ELSE password END,
       sessions = COALESCE(@sessions, sessions),
       expires_at = CASE WHEN @set_expires::boolean THEN @expires::timestamptz ELSE expires_at END,
       networks = COALESCE(@networks::cidr[], networks),
       blocked_at = CASE @blocked::boolean WHEN true THEN COALESCE(blocked_at, now()) WHEN false THEN NULL ELSE blocked_at END,
       comment = COALESCE(@comment, comment),
       updated_at = now()
 WHERE realm = @realm AND user_id = @user`

func editSubscriber(ctx context.Context, tx pgx.Tx, realm, user string, e SubscriberEdit) error {
	args := pgx.NamedArgs{
		"realm": realm, "user": user, "name": e.Name, "sessions": e.Sessions, "blocked": e.Blocked, "comment": e.Comment,
		"set_token": e.Token != nil, "token": nil, "set_login": e.Login != nil, "login": nil,
		"set_password": e.Password != nil, "password": nil, "set_expires": e.Expires != nil, "expires": nil, "networks": nil,
	}
	if e.Token != nil {
		args["token"] = idOf(*e.Token)
	}
	if e.Login != nil {
		args["login"] = some(*e.Login)
	}
	if e.Password != nil {
		args["password"] = some(*e.Password)
	}
	if e.Expires != nil && !e.Expires.IsZero() {
		args["expires"] = *e.Expires
	}
	if e.Networks != nil {
		args["networks"] = append([]netip.Prefix{}, *e.Networks...)
	}
	tag, err := tx.Exec(ctx, setSubscriberSQL, args)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrNoSubscriber
	}
	if e.Packages == nil {
		return nil
	}
	return setPackagesOf(ctx, tx, realm, user, *e.Packages)
}

const (
	unknownPackagesSQL = `
SELECT name
  FROM unnest(@packages::text[]) AS x (name)
 WHERE NOT EXISTS (SELECT FROM usher.package p WHERE p.realm = @realm AND p.name = x.name)
 LIMIT 1`
	dropPackagesOfSQL = `
DELETE FROM usher.subscriber_package
 WHERE realm = @realm AND user_id = @user AND NOT package = ANY (@packages::text[])`
	givePackagesSQL = `
INSERT INTO usher.subscriber_package (realm, user_id, package)
SELECT @realm, @user, name
  FROM unnest(@packages::text[]) AS x (name)
ON CONFLICT DO NOTHING`
)

func setPackagesOf(ctx context.Context, tx pgx.Tx, realm, user string, packages []string) error {
	args := pgx.NamedArgs{"realm": realm, "user": user, "packages": append([]string{}, packages...)}
	var unknown string
	err := tx.QueryRow(ctx, unknownPackagesSQL, args).Scan(&unknown)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s", ErrNoPackage, unknown)
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	if _, err := tx.Exec(ctx, dropPackagesOfSQL, args); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, givePackagesSQL, args)
	return err
}

const removeSubscriberSQL = `
DELETE FROM usher.subscriber
 WHERE realm = @realm AND user_id = @user`

// RemoveSubscriber removes a subscriber; his history stays. The error wraps ErrNoSubscriber.
func (s *Store) RemoveSubscriber(ctx context.Context, realm, user string) error {
	tag, err := s.pool.Exec(ctx, removeSubscriberSQL, pgx.NamedArgs{"realm": realm, "user": user})
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNoSubscriber
	}
	return editError("removing subscriber "+user, err)
}

// editError puts a constraint's refusal in our words.
func editError(doing string, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.ConstraintName {
		case "subscriber_token":
			err = ErrTokenTaken
		case "subscriber_login":
			err = ErrLoginTaken
		case "subscriber_package_realm_package_fkey":
			err = ErrNoPackage
		}
	}
	if isRefusal(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, unavailable(err))
}

// isRefusal says whether the error is one of ours, not Postgres's.
func isRefusal(err error) bool {
	for _, e := range []error{
		ErrSubscriberExists, ErrNoSubscriber, ErrNoPackage, ErrPackageExists, ErrPackageInUse, ErrTokenTaken, ErrLoginTaken,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
