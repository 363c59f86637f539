package pgstore

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/libs/directive"
	"usher.internal/libs/policy"
)

// seat opens a session of a user, each on a device of its own.
func seat(t *testing.T, s *Store, user, stream, ip string) uuid.UUID {
	t.Helper()
	session := newID(t)
	open := &admission.Open{
		Record: admission.Record{
			ID: newID(t), Region: "main", Edge: "edge1", Node: "web1", Caller: "nginx", Stream: stream, Realm: "main", User: user,
			IP: netip.MustParseAddr(ip), UserAgent: "VLC",
		},
		Reason: access.Granted, Session: session, Key: access.Key(newID(t)), Subject: subjectOf(user), Token: access.Key{3}, Device: session.String(),
		Limit: 1000, Mode: access.RefuseNew, Seat: time.Hour, Lease: time.Minute,
	}
	results, err := NewLedger(s).Apply(t.Context(), []admission.Item{{Open: open}})
	if err != nil || results[0].Outcome != access.Allow {
		t.Errorf("opening a seat = %+v, %v", results, err)
	}
	return session
}

func subjectOf(user string) (k access.Key) {
	copy(k[:], "u"+user)
	return k
}

// order is a ban of the criteria that change sets, or what change makes of it.
func order(t *testing.T, change func(*directive.Directive)) directive.Directive {
	t.Helper()
	d := directive.Directive{
		ID: newID(t), Kind: directive.Ban, Action: directive.Deny, At: time.Now().UTC().Truncate(time.Millisecond), Reason: "resells", Author: "anna",
	}
	change(&d)
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return d
}

func userBan(t *testing.T, user string) directive.Directive {
	return order(t, func(d *directive.Directive) { d.Realm, d.User = "main", user })
}

func direct(t *testing.T, s *Store, d directive.Directive) []admission.Ended {
	t.Helper()
	ended, err := s.Direct(t.Context(), d, 1000)
	if err != nil {
		t.Fatalf("Direct: %v", err)
	}
	return ended
}

func live(t *testing.T, s *Store) []uuid.UUID {
	t.Helper()
	rows, err := s.Sessions(t.Context(), SessionFilter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]uuid.UUID, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	return ids
}

func count(t *testing.T, s *Store, sql string) int {
	t.Helper()
	var n int
	if err := s.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func TestDirectEndsExactlyWhomItHits(t *testing.T) {
	t.Parallel()
	in := func(d *directive.Directive) {
		d.Kind, d.Until = directive.Override, d.At.Add(time.Hour)
	}
	for name, c := range map[string]struct {
		of   func(*directive.Directive)
		ends []int // of the seats below
		why  access.CloseReason
	}{
		"user":           {func(d *directive.Directive) { d.Realm, d.User = "main", "anna" }, []int{0, 1}, access.CloseBanned},
		"user on stream": {func(d *directive.Directive) { d.Realm, d.User, d.Stream = "main", "anna", "sport/*" }, []int{1}, access.CloseBanned},
		"realm":          {func(d *directive.Directive) { d.Realm = "main" }, []int{0, 1, 2, 3}, access.CloseBanned},
		"other realm":    {func(d *directive.Directive) { d.Realm, d.User = "tv", "anna" }, nil, ""},
		"address":        {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("192.0.2.1/32") }, []int{0, 2}, access.CloseBanned},
		"network":        {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("2001:db8::/32") }, []int{3}, access.CloseBanned},
		"pattern":        {func(d *directive.Directive) { d.Stream = "sport/**" }, []int{1, 3}, access.CloseBanned},
		"node":           {func(d *directive.Directive) { d.Node = "web2" }, nil, ""},
		"token":          {func(d *directive.Directive) { d.Token = access.Key{3} }, []int{0, 1, 2, 3}, access.CloseBanned},
		"override deny":  {func(d *directive.Directive) { in(d); d.Stream = "news" }, []int{0, 2}, access.CloseOverridden},
		"override allow": {func(d *directive.Directive) { in(d); d.Stream, d.Action = "news", directive.Allow }, nil, ""},
		"override limit": {func(d *directive.Directive) { in(d); d.Stream, d.Action, d.Limit = "news", directive.Limit, 1 }, nil, ""},
		"a check's word": {func(d *directive.Directive) { in(d); d.Check = "portal" }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			seats := []uuid.UUID{
				seat(t, s, "anna", "news", "192.0.2.1"), seat(t, s, "anna", "sport/one", "192.0.2.9"),
				seat(t, s, "berta", "news", "192.0.2.1"), seat(t, s, "cid", "sport/two/hd", "2001:db8::7"),
			}
			d := order(t, c.of)
			ended := direct(t, s, d)
			left := live(t, s)
			for i, id := range seats {
				hit := slices.Contains(c.ends, i)
				if slices.Contains(left, id) == hit || slices.ContainsFunc(ended, func(e admission.Ended) bool { return e.Session == id }) != hit {
					t.Errorf("session %d: live %v, want hit %v; ended %+v", i, slices.Contains(left, id), hit, ended)
				}
			}
			told, err := s.Outbox(t.Context(), 0, 100)
			if err != nil || len(told) != len(c.ends) {
				t.Errorf("outbox holds %d, %v, want %d", len(told), err, len(c.ends))
			}
			for _, e := range told {
				if m := e.Control(); e.Reason != c.why || m.GetKind() != "evict" || m.GetReason() != string(c.why) || m.GetBarMs() != 0 {
					t.Errorf("message %v, want an end without a bar because of %s", m, c.why)
				}
			}
			untold, err := s.Untold(t.Context(), 10)
			if err != nil || len(untold) != 1 || untold[0].ID != d.ID || untold[0].At.Before(d.At) {
				t.Errorf("Untold = %+v, %v", untold, err)
			}
			if n := count(t, s, "SELECT count(*) FROM usher.bar"); n != 0 {
				t.Errorf("%d bars: they would outlive the ban", n)
			}
		})
	}
}

func TestADirectiveComesBackAsItWasGiven(t *testing.T) {
	t.Parallel()
	s := setup(t)
	d := order(t, func(d *directive.Directive) {
		d.Kind, d.Action, d.Limit, d.Until = directive.Override, directive.Limit, 3, d.At.Add(time.Hour)
		d.Realm, d.User, d.Network, d.Stream = "tv", "17", netip.MustParsePrefix("10.0.0.0/8"), "a/**"
		d.Node, d.Check, d.Device, d.Token = "n", "portal", "box", access.Key{1}
	})
	direct(t, s, d)
	all, err := s.Directives(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("Directives = %v, %v", all, err)
	}
	d.At = all[0].At // Postgres's clock
	if all[0] != d {
		t.Errorf("Directives = %+v, want %+v", all[0], d)
	}
}

func TestOneThatHitsMoreThanWasSaidDoesNothing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for i := range 6 {
		seat(t, s, fmt.Sprint("user", i/2), "news", "192.0.2.1") // two sessions each
	}
	d := order(t, func(d *directive.Directive) { d.Stream = "news" })
	_, err := s.Direct(t.Context(), d, 2)
	var many *TooManyError
	if !errors.As(err, &many) || many.Hits != (Hits{Sessions: 6, Users: 3}) {
		t.Fatalf("Direct = %v, want too many: 6 sessions of 3 users", err)
	}
	if n := len(live(t, s)); n != 6 {
		t.Errorf("%d sessions live, want all 6", n)
	}
	if rows, err := s.Untold(t.Context(), 10); err != nil || len(rows) != 0 {
		t.Errorf("it was stored: %v, %v", rows, err)
	}
	if ended, err := s.Direct(t.Context(), d, 3); err != nil || len(ended) != 6 {
		t.Errorf("with the number said: %d ended, %v", len(ended), err)
	}
}

func TestAFailureLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	s := setup(t)
	d := order(t, func(d *directive.Directive) { d.Realm, d.User = "main", "anna" })
	seat(t, s, "anna", "news", "192.0.2.1")
	// The last step fails: nobody can be told.
	if _, err := s.pool.Exec(t.Context(), "ALTER TABLE usher.outbox ADD CHECK (reason <> 'banned')"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Direct(t.Context(), d, 10); err == nil {
		t.Fatal("Direct without a word for the edges succeeded")
	}
	if all, err := s.Directives(t.Context()); err != nil || len(all) != 0 || len(live(t, s)) != 1 {
		t.Errorf("half of it was done: %v, %v, %d live", all, err, len(live(t, s)))
	}
}

func TestManyAtOnceEndEachSessionOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for i := range 40 {
		seat(t, s, fmt.Sprint("user", i), "news", "192.0.2.1")
	}
	bans := make([]directive.Directive, 8)
	for i := range bans {
		bans[i] = order(t, func(d *directive.Directive) { d.Stream = "news" })
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	times := map[uuid.UUID]int{}
	for _, d := range bans {
		wg.Go(func() {
			ended, err := s.Direct(t.Context(), d, 1000)
			if err != nil {
				t.Errorf("Direct: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range ended {
				times[e.Session]++
			}
		})
	}
	wg.Wait()
	for id, n := range times {
		if n != 1 {
			t.Errorf("session %s was ended %d times", id, n)
		}
	}
	if len(times) != 40 || len(live(t, s)) != 0 {
		t.Errorf("%d ended, %d live, want 40 and none", len(times), len(live(t, s)))
	}
}

func TestEnforceEndsWhoSlippedIn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 15 {
				seat(t, s, "anna", fmt.Sprint("news", i), "192.0.2.1")
			}
		})
	}
	direct(t, s, userBan(t, "anna")) // while her sessions open
	wg.Wait()
	stays := seat(t, s, "berta", "news", "192.0.2.1")
	if _, err := s.Enforce(t.Context(), time.Minute); err != nil {
		t.Fatalf("Enforce: %v", err)
	}
	if left := live(t, s); len(left) != 1 || left[0] != stays {
		t.Errorf("%d sessions live, want berta's alone", len(left))
	}
	if ended, err := s.Enforce(t.Context(), 0); err != nil || len(ended) != 0 {
		t.Errorf("Enforce of what is old = %v, %v", ended, err)
	}
}

func TestALaterAllowKeepsEnforceAway(t *testing.T) {
	t.Parallel()
	s := setup(t)
	override := func(a directive.Action, change func(*directive.Directive)) {
		direct(t, s, order(t, func(d *directive.Directive) {
			d.Kind, d.Action, d.Until = directive.Override, a, d.At.Add(time.Hour)
			change(d)
		}))
	}
	override(directive.Deny, func(d *directive.Directive) { d.Stream = "news" })
	override(directive.Allow, func(d *directive.Directive) { d.Realm, d.User = "main", "anna" })
	vip := seat(t, s, "anna", "news", "192.0.2.1")
	seat(t, s, "berta", "news", "192.0.2.1")
	if _, err := s.Enforce(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := live(t, s); len(left) != 1 || left[0] != vip {
		t.Errorf("live %v, want anna's %s", left, vip)
	}
}

func TestRevokedIsToldAnew(t *testing.T) {
	t.Parallel()
	s := setup(t)
	d := userBan(t, "anna")
	direct(t, s, d)
	given, err := s.Untold(t.Context(), 10)
	if err != nil || len(given) != 1 {
		t.Fatalf("Untold = %v, %v", given, err)
	}
	if ok, err := s.RevokeDirective(t.Context(), directive.Override, d.ID, "berta", "it is a ban"); ok || err != nil {
		t.Errorf("revoked as another kind: %v, %v", ok, err)
	}
	for i, want := range []bool{true, false} {
		if ok, err := s.RevokeDirective(t.Context(), directive.Ban, d.ID, "berta", "paid"); ok != want || err != nil {
			t.Errorf("RevokeDirective %d = %v, %v, want %v", i, ok, err, want)
		}
	}
	// What was published is the state of before: the new one must still go out.
	if err := s.Told(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	untold, err := s.Untold(t.Context(), 10)
	if err != nil || len(untold) != 1 || untold[0].RevokedAt == nil || untold[0].RevokedBy != "berta" || untold[0].RevokedReason != "paid" {
		t.Fatalf("Untold = %+v, %v, want the revocation", untold, err)
	}
	if err := s.Told(t.Context(), untold); err != nil {
		t.Fatal(err)
	}
	if untold, err = s.Untold(t.Context(), 10); err != nil || len(untold) != 0 {
		t.Errorf("Untold = %+v, %v, want nothing", untold, err)
	}
	if all, err := s.Directives(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("Directives = %v, %v, want none", all, err)
	}
	for since, want := range map[time.Duration]int{time.Hour: 1, 0: 0} {
		if rows, err := s.Restated(t.Context(), since); err != nil || len(rows) != want {
			t.Errorf("Restated(%s) = %d rows, %v, want %d", since, len(rows), err, want)
		}
	}
}

func TestAdoptNeverTakesBack(t *testing.T) {
	t.Parallel()
	s := setup(t)
	d := userBan(t, "anna")
	at := time.Now()
	given, revoked := DirectiveRow{Directive: d}, DirectiveRow{Directive: d, RevokedAt: &at, RevokedBy: "berta", RevokedReason: "paid"}
	for i, step := range []struct {
		row     DirectiveRow
		changed int
		inForce int
	}{{given, 1, 1}, {given, 0, 1}, {revoked, 1, 0}, {given, 0, 0}, {revoked, 0, 0}} {
		changed, err := s.Adopt(t.Context(), []DirectiveRow{step.row})
		all, lerr := s.Directives(t.Context())
		if err != nil || lerr != nil || changed != step.changed || len(all) != step.inForce {
			t.Errorf("step %d: changed %d, %v, in force %d, %v", i, changed, err, len(all), lerr)
		}
	}
	if rows, err := s.Untold(t.Context(), 10); err != nil || len(rows) != 0 {
		t.Errorf("what the stream holds is told again: %v, %v", rows, err)
	}
}

func TestReadersSeeWhatIsInForce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	token := access.Key{0xab, 0xcd}
	direct(t, s, order(t, func(d *directive.Directive) { d.Token = token }))
	direct(t, s, order(t, func(d *directive.Directive) { d.Node, d.Until = "n", d.At.Add(time.Hour) }))
	ended := order(t, func(d *directive.Directive) { d.Node = "n" })
	direct(t, s, ended)
	if _, err := s.RevokeDirective(t.Context(), directive.Ban, ended.ID, "berta", "over"); err != nil {
		t.Fatal(err)
	}
	direct(t, s, order(t, func(d *directive.Directive) {
		d.Kind, d.Action, d.Limit, d.Until, d.Realm, d.User = directive.Override, directive.Limit, 3, d.At.Add(time.Hour), "main", "anna"
	}))
	if _, err := s.pool.Exec(t.Context(), "UPDATE usher.directive SET until = clock_timestamp() WHERE node = 'n' AND until IS NOT NULL"); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE usher_reader"); err != nil {
			return err
		}
		var bans, overrides int
		var fingerprint string
		if err := tx.QueryRow(t.Context(), "SELECT count(*), max(token) FROM usher.bans").Scan(&bans, &fingerprint); err != nil {
			return err
		}
		err := tx.QueryRow(t.Context(), `SELECT count(*) FROM usher.overrides WHERE "limit" = 3 AND user_id = 'anna' AND author = 'anna'`).Scan(&overrides)
		if bans != 1 || fingerprint != token.String() || overrides != 1 {
			t.Errorf("%d bans, token %s, %d overrides", bans, fingerprint, overrides)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		_, _ = tx.Exec(t.Context(), "SET LOCAL ROLE usher_reader")
		_, err := tx.Exec(t.Context(), "SELECT id FROM usher.directive")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("reading the table as a reader = %v, want a refusal", err)
	}
}

func TestEndedDirectivesStayNinetyDays(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for days, change := range map[int]string{
		1: "until", 89: "until", 91: "until", 100: "revoked_at", 400: "at",
	} {
		d := order(t, func(d *directive.Directive) { d.Node = fmt.Sprint(days) })
		direct(t, s, d)
		by := ""
		if change == "revoked_at" {
			by = ", revoked_by = 'x'"
		}
		_, err := s.pool.Exec(t.Context(), fmt.Sprintf("UPDATE usher.directive SET %s = now() - interval '%d days'%s WHERE node = '%d'", change, days, by, days))
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Maintain(t.Context(), policy.Retention{}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.DirectiveRows(t.Context(), DirectiveFilter{Ended: true})
	if err != nil || len(rows) != 3 {
		t.Errorf("%d rows stay, %v, want those of 1 and 89 days and the one without end", len(rows), err)
	}
}

func TestANoThatNamesNobodyLeavesTheName(t *testing.T) {
	t.Parallel()
	s := setup(t)
	k := s.Known()
	at := time.Now().UTC().Truncate(time.Millisecond)
	yes := func(user string, after int) word {
		return word{"portal", access.Key{1}, decide.Word{Allowed: true, User: user, Sessions: 2, At: at.Add(time.Duration(after) * time.Second)}}
	}
	no := func(after int) word {
		return word{"portal", access.Key{1}, decide.Word{At: at.Add(time.Duration(after) * time.Second)}}
	}
	of := func(realm string, w word) word {
		w.Realm = realm
		return w
	}
	for i, step := range []struct {
		batch []word
		want  decide.Word
	}{
		{[]word{yes("anna", 1)}, yes("anna", 1).Word},
		{[]word{no(2)}, decide.Word{User: "anna", Sessions: 2, At: no(2).At}},
		{[]word{yes("berta", 3), no(4), no(5)}, decide.Word{User: "berta", Sessions: 2, At: no(5).At}},
		{[]word{yes("", 6)}, decide.Word{Allowed: true, Sessions: 2, At: yes("", 6).At}},
		{[]word{of("tv", yes("carl", 7))}, of("tv", yes("carl", 7)).Word},
		{[]word{of("sport", no(8))}, decide.Word{Realm: "tv", User: "carl", Sessions: 2, At: no(8).At}},
		{[]word{of("sport", yes("dora", 9)), of("tv", no(10))}, decide.Word{Realm: "sport", User: "dora", Sessions: 2, At: no(10).At}},
	} {
		if err := k.write(t.Context(), step.batch); err != nil {
			t.Fatal(err)
		}
		w, ok, err := k.Allowed(t.Context(), "portal", access.Key{1})
		w.At = w.At.UTC()
		if err != nil || !ok || w != step.want {
			t.Errorf("step %d: %+v, %v, %v, want %+v", i, w, ok, err, step.want)
		}
	}
}
