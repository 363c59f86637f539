package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
)

// SubscriberRow is one row of the view usher.subscribers: it holds no secret and no hash.
type SubscriberRow struct {
	Realm       string         `json:"realm"`
	User        string         `json:"user_id"`
	Name        string         `json:"name"`
	Login       *string        `json:"login"`
	HasToken    bool           `json:"has_token"`
	HasPassword bool           `json:"has_password"`
	Packages    []string       `json:"packages"`
	Sessions    int            `json:"sessions"`
	ExpiresAt   *time.Time     `json:"expires_at"`
	Networks    []netip.Prefix `json:"networks"`
	BlockedAt   *time.Time     `json:"blocked_at"`
	Comment     string         `json:"comment"`
	CreatedAt   time.Time      `json:"created_at"`
	UpdatedAt   time.Time      `json:"updated_at"`
}

// SubscriberFilter chooses subscribers; a zero field matches everything.
type SubscriberFilter struct {
	Realm, User, Package string
	// Expired and Blocked choose only those that are so now.
	Expired, Blocked bool
	// Limit of rows, DefaultRows if 0, all if negative.
	Limit int
}

const subscribersSQL = `
SELECT realm, user_id, name, login, has_token, has_password, packages, sessions, expires_at, networks, blocked_at, comment,
       created_at, updated_at
  FROM usher.subscribers s
 WHERE (@realm::text IS NULL OR realm = @realm)
   AND (@user::text IS NULL OR user_id = @user)
   AND (@package::text IS NULL OR (realm, user_id) IN
        (SELECT p.realm, p.user_id FROM usher.subscriber_package p WHERE p.package = @package))
   AND (NOT @expired::boolean OR expires_at <= now())
   AND (NOT @blocked::boolean OR blocked_at IS NOT NULL)
 ORDER BY realm, user_id
 LIMIT @max`

// EachSubscriber gives every subscriber that the filter matches to f, by realm and user, until
// f fails. It holds one row at a time.
func (s *Store) EachSubscriber(ctx context.Context, f SubscriberFilter, each func(*SubscriberRow) error) error {
	var limit *int
	if f.Limit >= 0 {
		n := rowLimit(f.Limit)
		limit = &n
	}
	rows, err := s.pool.Query(ctx, subscribersSQL, pgx.NamedArgs{
		"realm": some(f.Realm), "user": some(f.User), "package": some(f.Package),
		"expired": f.Expired, "blocked": f.Blocked, "max": limit,
	})
	if err != nil {
		return fmt.Errorf("listing subscribers: %w", unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		row, err := pgx.RowToStructByPos[SubscriberRow](rows)
		if err != nil {
			return fmt.Errorf("listing subscribers: %w", unavailable(err))
		}
		if err := each(&row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("listing subscribers: %w", unavailable(err))
	}
	return nil
}

// SubscriberRows lists subscribers by realm and user.
func (s *Store) SubscriberRows(ctx context.Context, f SubscriberFilter) ([]SubscriberRow, error) {
	all := []SubscriberRow{}
	err := s.EachSubscriber(ctx, f, func(r *SubscriberRow) error {
		all = append(all, *r)
		return nil
	})
	return all, err
}

// SubscriberRow is one subscriber, nil if there is none.
func (s *Store) SubscriberRow(ctx context.Context, realm, user string) (*SubscriberRow, error) {
	if realm == "" || user == "" {
		return nil, errors.New("reading a subscriber: realm or user is missing")
	}
	all, err := s.SubscriberRows(ctx, SubscriberFilter{Realm: realm, User: user})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}
