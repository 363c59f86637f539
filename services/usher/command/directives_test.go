package command

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/testkit"
)

// nightDesk is an operator at night before a cluster's Postgres.
type nightDesk struct {
	t     *testing.T
	store *pgstore.Store
	dsn   string
}

func newNightDesk(t *testing.T) *nightDesk {
	t.Helper()
	d := &nightDesk{t: t, dsn: testkit.DSN(t)}
	var err error
	d.store, err = pgstore.Open(t.Context(), pgstore.Config{DSN: d.dsn, Application: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.store.Close)
	return d
}

// plays opens a session of a user.
func (d *nightDesk) plays(realm, user string) {
	d.t.Helper()
	id := uuid.Must(uuid.NewV7())
	open := &admission.Open{
		Record: admission.Record{ID: id, Node: "web1", Stream: "news", Realm: realm, User: user, IP: netip.MustParseAddr("192.0.2.1")},
		Reason: access.Granted, Session: id, Key: access.Key(id), Subject: access.Key(uuid.NewSHA1(uuid.Nil, []byte(realm+user))), Device: id.String(),
		Limit: 100, Mode: access.RefuseNew, Seat: time.Hour,
	}
	if _, err := pgstore.NewLedger(d.store).Apply(d.t.Context(), []admission.Item{{Open: open}}); err != nil {
		d.t.Fatal(err)
	}
}

// grants are those in the store, as a worker that has just started sees them.
func (d *nightDesk) grants() *pgstore.Grants {
	d.t.Helper()
	g := d.store.Grants()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("grants: %v", err)
		}
	})
	return g
}

func (d *nightDesk) live() int {
	d.t.Helper()
	rows, err := d.store.Sessions(d.t.Context(), pgstore.SessionFilter{Limit: 1000})
	if err != nil {
		d.t.Fatal(err)
	}
	return len(rows)
}

// run runs a command line and wants what it says; it returns all of that.
func (d *nightDesk) run(code int, says string, args ...string) string {
	d.t.Helper()
	got, out, errs := run(d.t, append(args, "--postgres", d.dsn)...)
	if got != code || !strings.Contains(out+errs, says) {
		d.t.Fatalf("usher %v = %d, want %d and %q:\n%s%s", args, got, code, says, out, errs)
	}
	return out + errs
}

// listed is what a list prints as JSON.
func (d *nightDesk) listed(args ...string) (rows []map[string]any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.run(0, "", append(args, "--json")...)), &rows); err != nil {
		d.t.Fatal(err)
	}
	return rows
}

func TestBansAtTheCommandLine(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.plays("main", "anna")
	d.plays("main", "anna")
	d.plays("main", "berta")
	d.run(1, "names nobody", "bans", "add", "--reason", "x")
	d.run(1, "names nobody", "bans", "add", "--reason", "x", "--for", "2h")
	d.run(1, "not both", "bans", "add", "--node", "n", "--reason", "x", "--for", "2h", "--until", "2030-01-01")
	d.run(1, "is no time", "bans", "add", "--node", "n", "--reason", "x", "--until", "soon")
	d.run(1, "ends before it begins", "bans", "add", "--node", "n", "--reason", "x", "--until", "2020-01-01")
	d.run(1, "--ip", "bans", "add", "--ip", "192.0.2", "--reason", "x")
	d.run(1, "stream", "bans", "add", "--stream", "***", "--reason", "x")
	d.run(2, "--reason", "bans", "add", "--node", "n")
	if d.live() != 3 || len(d.listed("bans", "list")) != 0 {
		t.Fatal("a ban that cannot be did something")
	}
	d.run(0, "it ended 2 sessions", "bans", "add", "--user", "anna", "--for", "2h", "--reason", "resells")
	d.run(0, "nobody whom it hits plays now", "bans", "add", "--ip", "198.51.100.0/24", "--reason", "attacks")
	if d.live() != 1 {
		t.Errorf("%d sessions live, want berta's", d.live())
	}
	rows := d.listed("bans", "list")
	if len(rows) != 2 || rows[0]["network"] != "198.51.100.0/24" || rows[0]["until"] != nil || rows[1]["realm"] != "main" || rows[1]["user_id"] != "anna" {
		t.Fatalf("listed %v", rows)
	}
	d.run(0, "resells", "bans", "list")
	id := fmt.Sprint(rows[1]["id"])
	d.run(1, "is no ban id", "bans", "remove", "x", "--reason", "x")
	d.run(1, "usher override list", "override", "end", id)
	d.run(0, "is over", "bans", "remove", id, "--reason", "paid")
	d.run(1, "usher bans list", "bans", "remove", id, "--reason", "paid")
	if rows := d.listed("bans", "list", "--all"); len(rows) != 2 || rows[1]["revoked_reason"] != "paid" {
		t.Errorf("listed %v, want both, one with why it ended", rows)
	}
	d.run(0, "ended", "bans", "list", "--all")
}

func TestABanOfManyWantsTheirNumber(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	for i := range quietUsers + 1 {
		d.plays("main", fmt.Sprint("user", i))
	}
	d.run(1, "it would end 51 sessions of 51 users now (stream news)", "bans", "add", "--stream", "news", "--reason", "leaked")
	d.run(1, "--hits 51", "override", "deny", "--stream", "news", "--for", "1h", "--reason", "leaked", "--hits", "50")
	if d.live() != quietUsers+1 {
		t.Fatal("it did something before it was asked twice")
	}
	d.run(0, "it ended 51 sessions", "bans", "add", "--stream", "news", "--reason", "leaked", "--yes-hits", "51")
}

func TestATokenIsKeptAsItsFingerprint(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.run(1, "--cluster-key", "bans", "add", "--token", "s3cret-token", "--reason", "shared", "--data", t.TempDir())
	key := make([]byte, access.ClusterKeySize)
	file := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	keyer, err := access.NewKeyer(key)
	if err != nil {
		t.Fatal(err)
	}
	want := keyer.Fingerprint("s3cret-token").String()
	said := d.run(0, want, "bans", "add", "--token", "s3cret-token", "--reason", "shared", "--cluster-key", file)
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"bans", "add", "--token", "-", "--reason", "shared", "--cluster-key", file, "--postgres", d.dsn},
		App{Out: &out, Err: &errs, In: strings.NewReader("s3cret-token\n")})
	if code != 0 || !strings.Contains(out.String(), want) {
		t.Errorf("from the standard input = %d: %s%s", code, out.String(), errs.String())
	}
	said += d.run(0, want, "bans", "list")
	if strings.Contains(said, "s3cret") {
		t.Errorf("the token is shown: %s", said)
	}
	if rows := d.listed("bans", "list"); len(rows) != 2 || rows[0]["token"] != want || rows[1]["token"] != want {
		t.Errorf("listed %v", rows)
	}
}

func TestOverridesAtTheCommandLine(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.plays("main", "anna")
	d.run(1, "needs one, at most 30 days", "override", "allow", "--check", "portal", "--reason", "x")
	d.run(1, "longer than 30 days", "override", "allow", "--check", "portal", "--for", "31d", "--reason", "x")
	d.run(1, "one session at least", "override", "limit", "0", "--user", "anna", "--for", "1h", "--reason", "x")
	d.run(0, "in force", "override", "allow", "--check", "portal", "--for", "2h", "--reason", "portal says 403")
	d.run(0, "user tv/17", "override", "limit", "3", "--user", "17", "--realm", "tv", "--for", "1h", "--reason", "one screen more")
	d.run(0, "it ended one session", "override", "deny", "--user", "anna", "--for", "1h", "--reason", "test")
	rows := d.listed("override", "list")
	if len(rows) != 3 || rows[0]["action"] != "deny" || rows[1]["limit"] != 3.0 || rows[2]["check_name"] != "portal" {
		t.Fatalf("listed %v", rows)
	}
	// They stand first wherever state is shown.
	for _, args := range [][]string{{"sessions", "list"}, {"why", "--user", "anna"}, {"users", "show", "anna"}, {"checks", "status"}} {
		if said := d.run(0, "portal says 403", args...); !strings.HasPrefix(said, "Overrides in force:\n") {
			t.Errorf("usher %v begins with %.60q", args, said)
		}
	}
	for _, args := range [][]string{{"why", "--user", "anna", "--json"}, {"users", "show", "anna", "--json"}} {
		var shown struct{ Overrides []directiveJSON }
		if err := json.Unmarshal([]byte(d.run(0, "", args...)), &shown); err != nil || len(shown.Overrides) != 3 {
			t.Errorf("usher %v: %v, %d overrides", args, err, len(shown.Overrides))
		}
	}
	if got := d.listed("sessions", "list"); len(got) != 0 {
		t.Errorf("sessions list --json = %v, want an empty list", got)
	}
	for _, r := range rows {
		d.run(0, "is over", "override", "end", fmt.Sprint(r["id"]))
	}
	if said := d.run(0, "no sessions", "sessions", "list"); strings.Contains(said, "Overrides") {
		t.Errorf("what has ended is shown: %s", said)
	}
}

func TestBlockAndUnblock(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.plays("tv", "17")
	d.plays("main", "17")
	d.run(2, "--reason", "users", "block", "17")
	d.run(0, "plays in realm tv", "users", "block", "17", "--reason", "did not pay")
	if d.live() != 1 {
		t.Errorf("%d sessions live, want the one in realm tv", d.live())
	}
	grant := decide.Grant{
		Check: "portal", For: decide.For{Who: access.Key{1}, Stream: "news"}, Realm: "tv", User: "17", At: time.Now(), Until: time.Now().Add(time.Hour),
	}
	grants := d.grants()
	if err := grants.Keep(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	d.run(0, "grants of middlewares ended: 1", "users", "block", "17", "--realm", "tv", "--reason", "did not pay")
	d.plays("tv", "17") // by a worker that has not heard of it
	d.run(0, "it ended one session", "users", "block", "17", "--realm", "tv", "--reason", "did not pay")
	d.run(0, "in force", "bans", "add", "--user", "17", "--stream", "sport", "--reason", "another matter")
	if left, err := d.grants().Find(t.Context(), grant.For, false); err != nil || len(left) != 0 {
		t.Errorf("grants of his are left: %v, %v", left, err)
	}
	d.run(0, "is over", "users", "unblock", "17", "--reason", "paid")
	d.run(1, "is not blocked", "users", "unblock", "17", "--reason", "paid")
	if rows := d.listed("bans", "list"); len(rows) != 3 {
		t.Errorf("listed %v, want those in realm tv and the one on a stream", rows)
	}
}
