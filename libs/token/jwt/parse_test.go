package jwt

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/token"
)

// FuzzVerify holds for any token: no panic, no outcome but the three, and nobody gets in but
// with what was signed.
func FuzzVerify(f *testing.F) {
	good := map[string]bool{}
	cases, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(cases) == 0 {
		f.Fatal(err)
	}
	for _, file := range cases {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.SplitSeq(string(raw), "\n") {
			if _, tok, ok := strings.Cut(line, "token: "); ok {
				tok = tok[strings.LastIndexByte(tok, ' ')+1:]
				f.Add(tok)
				good[signedPart(tok)] = true
			}
		}
	}
	o := NewOptions()
	o.Secret = secretFile(f, testSecret)
	o.Claims = Claims{User: "account.id", Device: "dev", Sessions: "max", Stream: "path", Streams: "ch", IP: "ip"}
	secret := open(f, o, Deps{})
	o = NewOptions()
	o.KeyFile = keyFile(f, "all.json")
	set := open(f, o, Deps{})
	f.Fuzz(func(t *testing.T, tok string) {
		for _, v := range []*Verifier{secret, set} {
			id, err := v.Verify(t.Context(), &token.Question{
				Token: tok, Stream: "bbc", IP: netip.MustParseAddr("203.0.113.7"), Now: time.Unix(1700000100, 0),
			})
			if got, _ := outcome(t, err); got == "allow" && !good[id.Bearer] {
				t.Errorf("Verify let %q in", tok)
			}
		}
		_, _ = Inspect(tok)
	})
}

func signedPart(tok string) string { return tok[:max(strings.LastIndexByte(tok, '.'), 0)] }

func FuzzParseKeys(f *testing.F) {
	files, err := filepath.Glob("testdata/keys/*")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, true)
		f.Add(raw, false)
	}
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"), false)
	f.Fuzz(func(t *testing.T, text []byte, fetched bool) {
		keys, err := parseKeys(text, nil, fetched)
		if (err == nil) == (len(keys) == 0) {
			t.Errorf("parseKeys(%q) = %d keys, %v", text, len(keys), err)
		}
		for _, k := range keys {
			if _, secret := k.value.([]byte); secret && fetched || len(k.algorithms) == 0 {
				t.Errorf("parseKeys(%q, fetched %t) = %T for %v", text, fetched, k.value, k.algorithms)
			}
		}
	})
}
