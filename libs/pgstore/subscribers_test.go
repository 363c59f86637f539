package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
	"usher.internal/libs/subscriber"
)

func ptr[T any](v T) *T { return &v }

// follow runs what remembers subscribers until the test ends, and waits for its first look.
func follow(t testing.TB, s *Store) *Subscribers {
	t.Helper()
	subs := s.Subscribers()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = subs.Run(ctx) }) // it only ends
	t.Cleanup(func() { cancel(); running.Wait() })
	until(t, "the first look at changes", func() bool {
		subs.mu.RLock()
		defer subs.mu.RUnlock()
		return subs.seen
	})
	return subs
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not so within 20 s", what)
		case <-tick.C:
		}
	}
}

func byToken(t testing.TB, s *Subscribers, token access.Key) decide.Found {
	t.Helper()
	f, err := s.ByToken(t.Context(), "main", token)
	if err != nil {
		t.Fatalf("ByToken: %v", err)
	}
	return f
}

func TestSubscribersEdit(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	token := access.Key{1}
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	edit := SubscriberEdit{
		Name: ptr("Anna"), Token: &token, Login: ptr("anna@example.com"), Password: ptr("$argon2id$x"), Sessions: ptr(3), Expires: &until,
		Networks: &[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Blocked: ptr(true), Comment: ptr("pays late"),
	}
	if err := s.AddSubscriber(ctx, "main", "anna", edit); err != nil {
		t.Fatal(err)
	}
	subs := s.Subscribers()
	f, err := subs.ByLogin(ctx, "main", "anna@example.com")
	if err != nil || f.Account == nil {
		t.Fatalf("ByLogin = %+v, %v", f, err)
	}
	if f.User != "anna" || f.Name != "Anna" || f.Token != token || f.Sessions != 3 || !f.Expires.Equal(until) || f.Password != "$argon2id$x" ||
		len(f.Networks) != 1 || f.Blocked.IsZero() || !slices.Equal(f.Packages, []string{subscriber.AllPackage}) {
		t.Errorf("account = %+v", f.Account)
	}
	if f := byToken(t, subs, token); f.Account == nil || f.User != "anna" {
		t.Errorf("ByToken = %+v", f)
	}
	ps, err := subs.Packages(ctx, "main")
	if err != nil || ps.Has(f.Account, "any/stream") == nil {
		t.Errorf("Packages = %v, %v; want one of every stream", ps, err)
	}
	for what, c := range map[string]struct {
		err  error
		want error
	}{
		"the same again":    {s.AddSubscriber(ctx, "main", "anna", SubscriberEdit{}), ErrSubscriberExists},
		"another realm":     {s.AddSubscriber(ctx, "tv", "anna", SubscriberEdit{Token: &token}), nil},
		"a taken token":     {s.AddSubscriber(ctx, "main", "berta", SubscriberEdit{Token: &token}), ErrTokenTaken},
		"a taken login":     {s.AddSubscriber(ctx, "main", "berta", SubscriberEdit{Login: ptr("anna@example.com")}), ErrLoginTaken},
		"no such package":   {s.SetSubscriber(ctx, "main", "anna", SubscriberEdit{Packages: &[]string{"sport"}}), ErrNoPackage},
		"nobody":            {s.SetSubscriber(ctx, "main", "berta", SubscriberEdit{}), ErrNoSubscriber},
		"a package in use":  {s.RemovePackage(ctx, "main", subscriber.AllPackage), ErrPackageInUse},
		"no package":        {s.RemovePackage(ctx, "main", "sport"), ErrNoPackage},
		"set a package":     {s.SetPackage(ctx, "main", subscriber.AllPackage, []string{"tv/*"}, nil), nil},
		"add it again":      {s.AddPackage(ctx, "main", subscriber.AllPackage, []string{"x"}, ""), ErrPackageExists},
		"removal of nobody": {s.RemoveSubscriber(ctx, "main", "berta"), ErrNoSubscriber},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	if err := s.SetSubscriber(ctx, "main", "anna", SubscriberEdit{
		Token: &access.Key{}, Login: ptr(""), Expires: &time.Time{}, Blocked: ptr(false), Packages: &[]string{},
	}); err != nil {
		t.Fatal(err)
	}
	row, err := s.SubscriberRow(ctx, "main", "anna")
	if err != nil || row == nil {
		t.Fatalf("SubscriberRow = %v, %v", row, err)
	}
	if row.HasToken || row.Login != nil || row.HasPassword || row.ExpiresAt != nil || row.BlockedAt != nil || len(row.Packages) != 0 ||
		row.Name != "Anna" || row.Sessions != 3 {
		t.Errorf("after it was taken all: %+v", row)
	}
	if err := s.RemoveSubscriber(ctx, "main", "anna"); err != nil {
		t.Fatal(err)
	}
	if f := byToken(t, subs, token); f.Account != nil {
		t.Errorf("after the removal the token is %s's", f.User)
	}
}

func TestSubscribersSeeEveryChangeWithinASecond(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	subs := follow(t, s)
	token, other := access.Key{1}, access.Key{2}
	if f := byToken(t, subs, token); f.Account != nil {
		t.Fatal("somebody is there before he was added")
	}
	seen := func(what string, did error, ok func() bool) {
		t.Helper()
		if did != nil {
			t.Fatalf("%s: %v", what, did)
		}
		began := time.Now()
		until(t, what, ok)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s was seen after %v", what, took)
		}
	}
	set := func(e SubscriberEdit) error { return s.SetSubscriber(ctx, "main", "anna", e) }
	sql := func(q string) error { _, err := s.pool.Exec(ctx, q); return err }
	seen("the addition", s.AddSubscriber(ctx, "main", "anna", SubscriberEdit{Token: &token, Login: ptr("anna")}),
		func() bool { return byToken(t, subs, token).Account != nil })
	seen("a block", set(SubscriberEdit{Blocked: ptr(true)}), func() bool { return !byToken(t, subs, token).Blocked.IsZero() })
	seen("another token", set(SubscriberEdit{Token: &other}),
		func() bool { return byToken(t, subs, token).Account == nil && byToken(t, subs, other).Account != nil })
	seen("no packages", set(SubscriberEdit{Packages: &[]string{}}), func() bool { return len(byToken(t, subs, other).Packages) == 0 })
	seen("a package in SQL", sql(`INSERT INTO usher.subscriber_package VALUES ('main', 'anna', 'all')`),
		func() bool { return len(byToken(t, subs, other).Packages) == 1 })
	has := func(stream string) bool {
		ps, err := subs.Packages(ctx, "main")
		return err == nil && ps.Has(byToken(t, subs, other).Account, stream) != nil
	}
	seen("another package", s.SetPackage(ctx, "main", "all", []string{"news", "sport/*"}, nil),
		func() bool { return !has("movies") && has("news") && has("sport/1") })
	seen("many at once", sql(`INSERT INTO usher.subscriber (realm, user_id) SELECT 'main', 'u' || n FROM generate_series(1, 600) n;
		UPDATE usher.subscriber SET sessions = 7`), func() bool { return byToken(t, subs, other).Sessions == 7 })
	seen("the removal", s.RemoveSubscriber(ctx, "main", "anna"), func() bool { return byToken(t, subs, other).Account == nil })
}

// A change that was begun before others and is committed after them must not be missed, and
// neither may one that is committed while a look at it is under way.
func TestSubscribersMissNoCommit(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	subs := follow(t, s)
	const people, rounds = 8, 30
	for i := range people {
		if err := s.AddSubscriber(ctx, "main", fmt.Sprint("u", i), SubscriberEdit{Token: &access.Key{byte(i + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	var working sync.WaitGroup
	stop := make(chan struct{})
	for i := range people {
		working.Go(func() { // somebody watches all the time, so that memory is filled between changes
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := subs.ByToken(ctx, "main", access.Key{byte(i + 1)}); err != nil && ctx.Err() == nil {
						t.Errorf("ByToken: %v", err)
						return
					}
					runtime.Gosched()
				}
			}
		})
	}
	var writing sync.WaitGroup
	for i := range people {
		writing.Go(func() {
			for n := range rounds {
				tx, err := s.pool.Begin(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = tx.Exec(ctx, `UPDATE usher.subscriber SET sessions = $1 WHERE user_id = $2`, n+1, fmt.Sprint("u", i))
				if err == nil {
					_, err = tx.Exec(ctx, `SELECT pg_sleep($1)`, 0.002*float64((i*7+n)%5))
				}
				if err == nil {
					err = tx.Commit(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	for i := range people {
		until(t, fmt.Sprintf("the last change of u%d is seen", i), func() bool {
			f, err := subs.ByToken(ctx, "main", access.Key{byte(i + 1)})
			return err == nil && f.Sessions == rounds
		})
	}
	close(stop)
	working.Wait()
}

func TestSubscribersWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	s := setup(t)
	subs := follow(t, s)
	known, stranger := access.Key{1}, access.Key{2}
	if err := s.AddSubscriber(t.Context(), "main", "anna", SubscriberEdit{Token: &known}); err != nil {
		t.Fatal(err)
	}
	until(t, "anna is known", func() bool { return byToken(t, subs, known).Account != nil })
	until(t, "anna is remembered", func() bool {
		_ = byToken(t, subs, known)
		_, ok := subs.known.GetIfPresent(accountKey{realm: "main", token: known})
		return ok
	})
	_ = byToken(t, subs, stranger)
	s.pool.Close()
	until(t, "it is noticed", func() bool {
		f, err := subs.ByToken(t.Context(), "main", known)
		return err == nil && f.Account != nil && f.Away > 0
	})
	until(t, "strangers cannot be told", func() bool {
		_, err := subs.ByToken(t.Context(), "main", stranger)
		return err != nil
	})
	if ps, err := subs.Packages(t.Context(), "main"); err != nil || len(ps) != 1 {
		t.Errorf("Packages = %v, %v", ps, err)
	}
}

func TestReaderSeesNoHashes(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	if err := s.AddSubscriber(ctx, "main", "anna", SubscriberEdit{Token: &access.Key{1}, Login: ptr("a"), Password: ptr("$argon2id$secret")}); err != nil {
		t.Fatal(err)
	}
	for sql, allowed := range map[string]bool{
		`SELECT * FROM usher.subscribers`: true, `SELECT * FROM usher.packages`: true,
		`SELECT password FROM usher.subscriber`: false, `SELECT token FROM usher.subscriber`: false,
	} {
		tx, err := s.pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, `SET LOCAL ROLE usher_reader`); err != nil {
			t.Fatal(err)
		}
		if _, err = tx.Exec(ctx, sql); (err == nil) != allowed {
			t.Errorf("as usher_reader, %s: %v", sql, err)
		}
		_ = tx.Rollback(ctx)
	}
}

// BenchmarkSubscribers measures a known subscriber, one who must be looked up among a million,
// and what one in memory takes.
func BenchmarkSubscribers(b *testing.B) {
	s, ctx := setup(b), b.Context()
	_, err := s.pool.Exec(ctx, `
		INSERT INTO usher.package (realm, name, streams) VALUES ('main', 'all', '{**}'), ('main', 'sport', '{sport/*}');
		INSERT INTO usher.subscriber (realm, user_id, token, sessions, expires_at)
		SELECT 'main', 'user' || n, md5(n::text)::uuid, 2, now() + interval '1 year' FROM generate_series(1, 1000000) n;
		INSERT INTO usher.subscriber_package SELECT 'main', 'user' || n, p FROM generate_series(1, 1000000) n, unnest('{all,sport}'::text[]) p;
		ANALYZE usher.subscriber; ANALYZE usher.subscriber_package`)
	if err != nil {
		b.Fatal(err)
	}
	rows, err := s.pool.Query(ctx, `SELECT token FROM usher.subscriber ORDER BY token LIMIT 100000`)
	if err != nil {
		b.Fatal(err)
	}
	var tokens []access.Key
	for rows.Next() {
		var k [16]byte
		if err := rows.Scan(&k); err != nil {
			b.Fatal(err)
		}
		tokens = append(tokens, k)
	}
	subs := follow(b, s)
	b.Run("looked up among a million", func(b *testing.B) {
		fresh := s.Subscribers() // it remembers nothing
		for i := 0; b.Loop(); i++ {
			if f := byToken(b, fresh, tokens[i%len(tokens)]); f.Account == nil {
				b.Fatal("not found")
			}
		}
	})
	b.Run("known", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for _, k := range tokens[:50_000] {
			byToken(b, subs, k)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		for i := 0; b.Loop(); i++ {
			if f := byToken(b, subs, tokens[i%50_000]); f.Account == nil {
				b.Fatal("not found")
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/50_000, "B/account")
	})
}
