package pgstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

func importText(t testing.TB, s *Store, text string, skip bool) (Imported, error) {
	t.Helper()
	keyer, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	x, err := subscriber.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.ImportSubscribers(t.Context(), Import{Realm: "main", Keyer: keyer, SkipBad: skip}, x)
}

func counts(r Imported) string {
	return fmt.Sprintf("%d lines: %d added, %d changed, %d unchanged, %d bad", r.Lines, r.Added, r.Changed, r.Unchanged, r.Bad)
}

func TestImportSubscribers(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	if err := s.AddPackage(ctx, "main", "sport", []string{"sport/*"}, ""); err != nil {
		t.Fatal(err)
	}
	wants := func(what, text string, want string) {
		t.Helper()
		r, err := importText(t, s, text, false)
		if err != nil || counts(r) != want {
			t.Errorf("%s: %s, %v, %+v; want %s", what, counts(r), err, r.BadLines, want)
		}
	}
	row := func(user string) *SubscriberRow {
		t.Helper()
		row, err := s.SubscriberRow(ctx, "main", user)
		if err != nil || row == nil {
			t.Fatalf("%s: %v, %v", user, row, err)
		}
		return row
	}
	first := "user,name,token,password,packages,sessions,until,ip,blocked\n" +
		"anna,Anna,token-of-anna,secret,sport,2,2030-12-31,192.0.2.1,no\n" +
		"berta,Berta,token-of-berta,,,,,,yes\n"
	wants("the first time", first, "2 lines: 2 added, 0 changed, 0 unchanged, 0 bad")
	wants("again", first, "2 lines: 0 added, 0 changed, 2 unchanged, 0 bad")
	anna := row("anna")
	if *anna.Login != "anna" || !anna.HasToken || !anna.HasPassword || !slices.Equal(anna.Packages, []string{"sport"}) || anna.Sessions != 2 || len(anna.Networks) != 1 {
		t.Errorf("anna = %+v", anna)
	}
	if b := row("berta"); len(b.Packages) != 0 || b.BlockedAt == nil || b.HasPassword {
		t.Errorf("berta = %+v", b)
	}
	wants("some columns", "user,sessions\nanna,5\ncarl,1\n", "2 lines: 1 added, 1 changed, 0 unchanged, 0 bad")
	if a := row("anna"); a.Sessions != 5 || a.Name != "Anna" || !a.HasToken || !a.HasPassword || len(a.Packages) != 1 || a.ExpiresAt == nil {
		t.Errorf("anna = %+v", a)
	}
	if c := row("carl"); !slices.Equal(c.Packages, []string{subscriber.AllPackage}) {
		t.Errorf("carl = %+v", c)
	}
	wants("empty secrets", "user,token,password\nanna,,\n", "1 lines: 0 added, 0 changed, 1 unchanged, 0 bad")
	wants("another password", "user,password\nanna,other\n", "1 lines: 0 added, 1 changed, 0 unchanged, 0 bad")
	wants("other packages", "user,packages\nanna,all|sport\nberta,\n", "2 lines: 0 added, 1 changed, 1 unchanged, 0 bad")
	wants("no login", "user,login\nanna,\n", "1 lines: 0 added, 1 changed, 0 unchanged, 0 bad")
	if a := row("anna"); a.Login != nil || a.HasPassword {
		t.Errorf("anna = %+v", a)
	}
}

func TestImportIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t), t.Context()
	if err := s.AddSubscriber(ctx, "main", "anna", SubscriberEdit{Login: ptr("anna")}); err != nil {
		t.Fatal(err)
	}
	text := "user,token,login,packages,sessions\n" +
		"berta,token-of-berta,,all,1\n" + // 2
		"berta,,,all,1\n" + // 3: again
		"carl,token-of-berta,,all,1\n" + // 4: his token
		"dora,,anna,all,1\n" + // 5: her login
		"emil,,,films,1\n" + // 6: no such package
		"fritz,,,all,x\n" + // 7: no number
		"gerd,,,all,3\n" // 8
	r, err := importText(t, s, text, false)
	if !errors.Is(err, ErrBadLines) || r.Bad != 5 {
		t.Errorf("import = %s, %v", counts(r), err)
	}
	var lines []string
	for _, b := range r.BadLines {
		lines = append(lines, b.Error())
	}
	slices.Sort(lines)
	want := []string{
		"line 3: user: stands in line 2 already", "line 4: token: stands in line 2 already", "line 5: login: is that of subscriber anna",
		"line 6: packages: there is no package films", "line 7: sessions: want a number up to 1000000, 0 for the rule's limit",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("bad lines %q, want %q", lines, want)
	}
	rows, err := s.SubscriberRows(ctx, SubscriberFilter{})
	if err != nil || len(rows) != 1 {
		t.Errorf("after a refused import there are %d subscribers, %v", len(rows), err)
	}
	r, err = importText(t, s, text, true)
	if err != nil || counts(r) != "7 lines: 2 added, 0 changed, 0 unchanged, 5 bad" {
		t.Errorf("with the bad lines left out: %s, %v", counts(r), err)
	}
	if _, err := importText(t, s, "user,name\nanna,\""+strings.Repeat("x", 2<<20), true); err == nil || !strings.Contains(err.Error(), "not closed") {
		t.Errorf("an open quote: %v", err)
	}
}

func BenchmarkImport(b *testing.B) {
	s := setup(b)
	var text strings.Builder
	text.WriteString("user,name,token,sessions,until\n")
	for n := range 100_000 {
		fmt.Fprintf(&text, "user%d,User %d,token-of-user-%d,2,2030-12-31\n", n, n, n)
	}
	for b.Loop() {
		if r, err := importText(b, s, text.String(), false); err != nil || r.Bad > 0 {
			b.Fatal(counts(r), err)
		}
	}
}
