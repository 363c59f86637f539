package subscriber

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func readAll(t testing.TB, text string) (rows []*Row, bad []string, err error) {
	t.Helper()
	x, err := NewReader(strings.NewReader(text))
	if err != nil {
		return nil, nil, err
	}
	for {
		row, err := x.Read()
		var line *BadLine
		switch {
		case errors.Is(err, io.EOF):
			return rows, bad, nil
		case errors.As(err, &line):
			bad = append(bad, line.Error())
		case err != nil:
			return rows, bad, err
		default:
			rows = append(rows, row)
		}
	}
}

func TestReadSubscribers(t *testing.T) {
	t.Parallel()
	rows, bad, err := readAll(t, "\xef\xbb\xbfUser, name,token,login,password,packages,sessions,until,ip,blocked,comment\n"+
		"anna,\"Anna, A.\",token-of-anna,anna,\" p w \",basic|sport;basic,2,2026-12-31,192.0.2.1;10/8,no,\n"+
		"berta,,,,,,,,,,\n"+
		"carl,,tiny,,,,,,,,\n"+
		"dora,,,,,,-1,,,,\n"+
		"emil,,,,,,,soon,,,\n"+
		"\"fritz\n"+
		"x\",,,,,,,,,,\n"+
		"gerd,,\n"+
		",,,,,,,,,,\n"+
		"hans,,,,,,,2027-01-02T03:04:05+01:00,,yes,late\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || len(bad) != 6 {
		t.Fatalf("%d rows, bad: %q", len(rows), bad)
	}
	a := rows[0]
	if a.Line != 2 || a.User != "anna" || a.Name != "Anna, A." || a.Password != " p w " || !slices.Equal(a.Packages, []string{"basic", "sport"}) ||
		a.Sessions != 2 || !a.Until.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) || len(a.Networks) != 2 || a.Blocked {
		t.Errorf("anna = %+v", a)
	}
	if h := rows[2]; h.User != "hans" || !h.Blocked || h.Comment != "late" || h.Until.Hour() != 2 {
		t.Errorf("hans = %+v", h)
	}
	for i, begins := range []string{"line 4: token: ", "line 5: sessions: ", "line 6: until: ", "line 7: user: ", "line 9: ", "line 10: user: "} {
		if !strings.HasPrefix(bad[i], begins) {
			t.Errorf("bad line %d: %q, want %q", i, bad[i], begins)
		}
		if strings.Contains(bad[i], "tiny") && i == 0 {
			t.Errorf("a token stands in %q", bad[i])
		}
	}
}

func TestFirstLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                    "names the columns",
		"name\n":              "no column user",
		"user,passwrd\n":      `did you mean "password"?`,
		"user,user\n":         "twice",
		"user;name\nanna;A\n": "",
		"user\nanna\n":        "",
		"user,name\nanna,\"" + strings.Repeat("x", 2<<20): "not closed",
	} {
		_, _, err := readAll(t, text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func FuzzReadSubscribers(f *testing.F) {
	f.Add("user,name,token\nanna,A,token-of-anna\n")
	f.Add("user;until\nanna;2026-12-31\nberta;x\n")
	f.Add("user,ip,blocked,sessions\n\"a\"\"b\",10/8|::1,yes,3\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		rows, bad, _ := readAll(t, text)
		for _, r := range rows {
			if CheckUser(r.User) != nil || r.Login != "" && CheckLogin(r.Login) != nil || CheckToken(r.Token) != nil || r.Line < 1 ||
				len(r.Password) > MaxPassword || r.Sessions < 0 || len(r.Networks) > 64 {
				t.Fatalf("row = %+v", r)
			}
		}
		if len(rows)+len(bad) > strings.Count(text, "\n")+strings.Count(text, "\r")+2 {
			t.Fatalf("%d rows and %d bad lines", len(rows), len(bad))
		}
	})
}
