package pgstore

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/admission"
	"usher.internal/schemas/proto/usherv1"
)

const forgottenSQL = `
SELECT u.ord::integer - 1
  FROM unnest(@realms::text[], @users::text[], @ats::timestamptz[]) WITH ORDINALITY AS u(realm, user_id, at, ord)
  JOIN usher.forgotten f ON f.who = usher.user_print(u.realm, u.user_id)
 WHERE u.at <= f.at`

// withoutForgotten takes users out of rows of a time before they were forgotten: the journal brings them late.
func withoutForgotten(ctx context.Context, tx pgx.Tx, lists ...[]*usherv1.DecisionRow) error {
	var named []*usherv1.DecisionRow
	var realms, users []string
	var ats []time.Time
	for _, rows := range lists {
		for _, r := range rows {
			id, err := uuid.FromBytes(r.GetId())
			// What cannot be stored is passed over later, alone.
			if err != nil || id.Version() != 7 || r.GetUser() == "" || !storable(r.GetUser()) || !storable(r.GetRealm()) {
				continue
			}
			named, ats = append(named, r), append(ats, admission.IDTime(id))
			realms, users = append(realms, r.GetRealm()), append(users, r.GetUser())
		}
	}
	if len(named) == 0 {
		return nil
	}
	found, err := tx.Query(ctx, forgottenSQL, pgx.NamedArgs{"realms": realms, "users": users, "ats": ats})
	if err != nil {
		return err
	}
	var i int
	_, err = pgx.ForEachRow(found, []any{&i}, func() error {
		r := named[i]
		r.User, r.Ip, r.UserAgent, r.Steps = "", "", "", "[]"
		return nil
	})
	return err
}

func storable(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }
