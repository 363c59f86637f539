package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PackageRow is one row of the view usher.packages.
type PackageRow struct {
	Realm       string    `json:"realm"`
	Name        string    `json:"name"`
	Streams     []string  `json:"streams"`
	Comment     string    `json:"comment"`
	Subscribers int64     `json:"subscribers"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

const packageRowsSQL = `
SELECT realm, name, streams, comment, subscribers, created_at, updated_at
  FROM usher.packages
 WHERE (@realm::text IS NULL OR realm = @realm)
   AND (@name::text IS NULL OR name = @name)
 ORDER BY realm, name
 LIMIT @max`

// PackageRows lists packages by name; "" matches every realm and name.
func (s *Store) PackageRows(ctx context.Context, realm, name string, limit int) ([]PackageRow, error) {
	rows, err := s.pool.Query(ctx, packageRowsSQL, pgx.NamedArgs{"realm": some(realm), "name": some(name), "max": rowLimit(limit)})
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", unavailable(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PackageRow])
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", unavailable(err))
	}
	return all, nil
}

const (
	addPackageSQL = `
INSERT INTO usher.package (realm, name, streams, comment)
VALUES (@realm, @name, @streams, COALESCE(@comment, ''))
ON CONFLICT DO NOTHING`
	setPackageSQL = `
UPDATE usher.package
   SET streams = COALESCE(@streams::text[], streams), comment = COALESCE(@comment, comment), updated_at = now()
 WHERE realm = @realm AND name = @name`
	removePackageSQL = `
DELETE FROM usher.package
 WHERE realm = @realm AND name = @name`
)

// AddPackage makes a package. Its patterns must have been compiled by subscriber.NewPackage.
// The error wraps ErrPackageExists.
func (s *Store) AddPackage(ctx context.Context, realm, name string, streams []string, comment string) error {
	tag, err := s.pool.Exec(ctx, addPackageSQL, pgx.NamedArgs{"realm": realm, "name": name, "streams": streams, "comment": comment})
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrPackageExists
	}
	return packageError("adding package "+name, err)
}

// SetPackage changes a package; nil leaves what it has. The error wraps ErrNoPackage.
func (s *Store) SetPackage(ctx context.Context, realm, name string, streams []string, comment *string) error {
	tag, err := s.pool.Exec(ctx, setPackageSQL, pgx.NamedArgs{"realm": realm, "name": name, "streams": streams, "comment": comment})
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNoPackage
	}
	return packageError("changing package "+name, err)
}

// RemovePackage removes a package that no subscriber has. The error wraps ErrNoPackage or
// ErrPackageInUse.
func (s *Store) RemovePackage(ctx context.Context, realm, name string) error {
	tag, err := s.pool.Exec(ctx, removePackageSQL, pgx.NamedArgs{"realm": realm, "name": name})
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNoPackage
	}
	return packageError("removing package "+name, err)
}

func packageError(doing string, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23503" {
		err = ErrPackageInUse
	}
	return editError(doing, err)
}
