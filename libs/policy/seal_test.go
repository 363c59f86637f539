package policy_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/policy"
)

func keyer(t testing.TB) *access.Keyer {
	t.Helper()
	k, err := access.NewKeyer(bytes.Repeat([]byte{7}, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal(t *testing.T) {
	t.Parallel()
	k := keyer(t)
	text := `
version: 1
streams:
  - match: "ü"
    auth: deny
    allow: {token: [abc, 12345, "d\"q", 'it''s', "ключ"], ip: [10/8]} # abc
  - match: "*"
    auth: deny
    deny:
      token: &bad
        - plain words   # comment
        - "long
          text"
  - {match: "**", auth: deny, deny: {token: *bad}}
`
	before := parse(t, text)
	out, err := policy.Seal("p.yaml", []byte(text), k)
	if err != nil {
		t.Fatal(err)
	}
	after := parse(t, string(out))
	for i, r := range before.Rules {
		for j, token := range slices.Concat(r.Allow.Tokens, r.Deny.Tokens) {
			got := slices.Concat(after.Rules[i].Allow.Tokens, after.Rules[i].Deny.Tokens)[j]
			if want := "fp:" + k.Fingerprint(token).String(); got != want {
				t.Errorf("%q is sealed as %q, want %q", token, got, want)
			}
			if policy.TokenKey(k, got) != k.Fingerprint(token) || policy.TokenKey(k, token) != k.Fingerprint(token) {
				t.Errorf("TokenKey of %q differs when sealed", token)
			}
			if j > 0 && strings.Contains(string(out), token) {
				t.Errorf("%q is still there", token)
			}
		}
	}
	if !strings.Contains(string(out), "ip: [10/8]} # abc\n") || !strings.Contains(string(out), "   # comment\n") {
		t.Errorf("more than tokens has changed:\n%s", out)
	}
	again, err := policy.Seal("p.yaml", out, k)
	if err != nil || !bytes.Equal(again, out) {
		t.Errorf("sealing again: %v\n%s", err, again)
	}
}

func TestSealFindsTheTokensOfClients(t *testing.T) {
	t.Parallel()
	text := `
version: 1
clients:
  a: &a {token: [abc-1, abc-2], ip: [10/8]}
  b: {<<: *a, sessions: 3}
  c:
    token:
      - "abc-3" # abc
  d: {<<: *a, token: &list [abc-4]}
  e: {token: *list}
streams: [{match: "**", auth: deny}]
`
	before := parse(t, text)
	out, err := policy.Seal("p.yaml", []byte(text), keyer(t))
	if err != nil {
		t.Fatal(err)
	}
	after := parse(t, string(out))
	if strings.Contains(string(out), "abc-") || !strings.Contains(string(out), "# abc\n") || len(after.Clients) != 5 {
		t.Fatalf("tokens stay, more has changed, or %d clients are not 5:\n%s", len(after.Clients), out)
	}
	for i, c := range before.Clients {
		for j, token := range c.Tokens {
			if got := after.Clients[i].Tokens[j]; got != "fp:"+keyer(t).Fingerprint(token).String() {
				t.Errorf("%s: %q is sealed as %q", c.Name, token, got)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]string{
		"block":  "[x]\n      token:\n        - |\n          abc\n",
		"anchor": "[x]\n      token: [&a abc]\n",
		"lines":  "[x]\n      token:\n        - one\n          two\n",
	} {
		text := "version: 1\nstreams:\n  - match: x\n    auth: deny\n    deny:\n      ua: " + list
		parse(t, text)
		var problems config.Problems
		if out, err := policy.Seal("p.yaml", []byte(text), keyer(t)); !errors.As(err, &problems) {
			t.Errorf("%s: got %v and\n%s", name, err, out)
		}
	}
}

func TestSealKnowsEveryLineBreak(t *testing.T) {
	t.Parallel()
	for _, br := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		text := "version: 1" + br + "# secret-token" + br + "streams:" + br + "- {match: x, auth: deny," + br + " deny: {token: [secret-token]}}" + br
		parse(t, text)
		out, err := policy.Seal("p.yaml", []byte(text), keyer(t))
		if err != nil || strings.Count(string(out), "secret-token") != 1 || !strings.Contains(string(out), br+"# secret-token"+br) {
			t.Errorf("%q: %v\n%q", br, err, out)
		}
	}
}

func TestBadSealIsAProblem(t *testing.T) {
	t.Parallel()
	_, err := policy.Parse("p.yaml", []byte("version: 1\nstreams: [{match: x, auth: deny, deny: {token: [\"fp:12\"]}}]"), nil)
	want := `p.yaml:2:49: streams[0].deny.token[0]: want 32 hex digits after fp:, which marks the fingerprint of a token`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Whatever the parser accepts is sealed wholly or not at all.
func FuzzSeal(f *testing.F) {
	f.Add([]byte("version: 1\nstreams: [{match: x, auth: deny, deny: {token: [abc, 'd''e', \"\\u0041\"]}}]"))
	f.Add([]byte("\ufeffversion: 1\r\nstreams: [{match: ü, auth: deny, allow: {token: [\r\nabc]}}]"))
	f.Add([]byte("version: 1\nstreams:\n- match: x\n  auth: deny\n  deny: {token: &a [b]}\n- {match: y, auth: deny, allow: {token: *a}}"))
	k := keyer(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		before, err := policy.Parse("p.yaml", data, nil)
		if err != nil {
			return
		}
		out, err := policy.Seal("p.yaml", data, k)
		if err != nil {
			return
		}
		after, err := policy.Parse("p.yaml", out, nil)
		if err != nil {
			t.Fatalf("sealed text is refused: %v\n%s", err, out)
		}
		for i, r := range after.Rules {
			was := slices.Concat(before.Rules[i].Allow.Tokens, before.Rules[i].Deny.Tokens)
			for j, token := range slices.Concat(r.Allow.Tokens, r.Deny.Tokens) {
				if !strings.HasPrefix(token, "fp:") || policy.TokenKey(k, token) != policy.TokenKey(k, was[j]) {
					t.Errorf("%q is sealed as %q", was[j], token)
				}
			}
		}
	})
}
