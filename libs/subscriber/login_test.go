package subscriber

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func places(t testing.TB, texts ...string) []Place {
	t.Helper()
	ps, err := (&Options{Login: texts, AllowPassword: true}).Places()
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func TestFindLogin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		places      []string
		query, path string
		login, pass string
		bad         bool
	}{
		"astra":               {nil, "auth=anna:pw&x=1", "", "anna", "pw", false},
		"colons in it":        {nil, "auth=anna:p:w", "", "anna", "p:w", false},
		"encoded":             {nil, "a%75th=anna%3Ap%20w", "", "anna", "p w", false},
		"plus is a space":     {nil, "auth=anna:p+w", "", "anna", "p w", false},
		"twice":               {nil, "auth=anna:pw&auth=otto:pw", "", "", "", true},
		"no colon":            {nil, "auth=anna", "", "", "", false},
		"no password":         {nil, "auth=anna:", "", "", "", false},
		"no login":            {nil, "auth=:pw", "", "", "", false},
		"nothing":             {nil, "", "", "", "", false},
		"broken escape":       {nil, "auth=anna%3", "", "", "", true},
		"NUL":                 {nil, "auth=anna%00:x", "", "", "", true},
		"xtream's parameters": {[]string{"query:username", "query:password"}, "username=anna&password=p:w", "", "anna", "p:w", false},
		"xtream's path":       {[]string{"path:2", "path:3"}, "", "/live/anna/p%20w/17.ts", "anna", "p w", false},
		"a short path":        {[]string{"path:2", "path:3"}, "", "/live/anna", "", "", false},
		"half of it":          {[]string{"query:username", "query:password"}, "password=x", "", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			login, pass, ok, err := FindLogin(places(t, c.places...), c.query, c.path)
			if login != c.login || pass != c.pass || ok != (c.login != "") || (err != nil) != c.bad {
				t.Errorf("FindLogin(%q, %q) = %q, %q, %v, %v; want %q, %q", c.query, c.path, login, pass, ok, err, c.login, c.pass)
			}
		})
	}
}

func FuzzFindLogin(f *testing.F) {
	for _, q := range []string{"auth=anna:pw", "auth=a%3Ab&auth=c", "username=a&password=b", "auth=%zz", "&&=&auth", "a%75th=x:y"} {
		f.Add(q, "/live/a/b/1.ts")
	}
	ways := [][]Place{places(f), places(f, "query:username", "query:password"), places(f, "path:2", "path:3")}
	f.Fuzz(func(t *testing.T, query, path string) {
		for _, ps := range ways {
			login, password, ok, err := FindLogin(ps, query, path)
			switch {
			case (err != nil || !ok) && (login != "" || password != ""):
				t.Fatalf("a refusal gives a login: %q %q", login, password)
			case !ok:
				continue
			case CheckLogin(login) != nil || password == "" || !utf8.ValidString(password) || strings.Contains(password, "\x00"):
				t.Fatalf("FindLogin gives login %q, password %q", login, password)
			}
			if values, err := url.ParseQuery(query); err == nil && len(ps) == 2 && ps[0].parameter != "" && values.Get("username") != login {
				t.Fatalf("net/url reads login %q, we %q", values.Get("username"), login)
			}
		}
	})
}

func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=4294967296,t=2,p=1$c29tZXNhbHQ$AAAA")
	f.Fuzz(func(t *testing.T, phc string) {
		h, err := parseHash(phc)
		if err == nil && (h.memory > maxMemory || h.time < 1 || h.time > maxTime || h.threads < 1 || len(h.salt) < 8 || len(h.sum) < 16) {
			t.Fatalf("parseHash(%q) = %+v", phc, h)
		}
	})
}
