package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hidden = "this-is-the-secret-and-stays-hidden"

// tokenPolicy writes a policy with every scheme, its secrets readable.
func tokenPolicy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	secret, file := filepath.Join(dir, "secret"), filepath.Join(dir, "policy.yaml")
	text := fmt.Sprintf(`version: 1
nodes:
  a1: {caller: astra, from: [127.0.0.1]}
  bearer: {caller: nginx, from: [127.0.0.1], token: ["header:Authorization"], url: "/hls/{stream}/**"}
  links: {caller: nginx, from: [127.0.0.1], token: ["query:md5"], url: "/hls/{stream}/**"}
  old: {caller: nginx, from: [127.0.0.1], token: ["path:2"], url: "/p/*/{stream}/**"}
checks:
  site: {type: securetoken, secret: "file:%[1]s", salt_length: 16}
  app: {type: jwt, secret: "file:%[1]s", claims: {user: sub, streams: ch, sessions: max}}
  link: {type: secure_link, secret: "file:%[1]s"}
  ministra: {type: secure_link, secret: "file:%[1]s", hash: "{secret}{path}{expires}", md5: st, expires: e, cut: [/playlist.m3u8]}
  gone: {type: secure_link, secret: "file:%[1]s", form: secure_link_secret}
streams:
  - match: "**"
    auth: {any: [site, app, link, ministra, gone]}
`, secret)
	for path, content := range map[string]string{secret: hidden + "\n", file: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// What sign prints, inspect knows and the check accepts; nothing shows the secret.
func TestTokens(t *testing.T) {
	t.Parallel()
	file := tokenPolicy(t)
	for name, c := range map[string]struct {
		sign    []string
		inspect []string
		says    []string
	}{
		"securetoken": {
			[]string{"securetoken", "--stream", "bbc", "--user", "u42", "--ip", "203.0.113.7", "--for", "2h"},
			[]string{"--ip", "203.0.113.7"},
			[]string{"looks like securetoken", "in 2 h", "check site (securetoken) accepts it for stream bbc from 203.0.113.7: user u42"},
		},
		"jwt": {
			[]string{"jwt", "--node", "links", "--stream", "bbc", "--user", "u42", "--sessions", "3"},
			[]string{"--node", "links"},
			[]string{"looks like jwt", "HS256", "check app (jwt) accepts it for stream bbc", "user u42, at most 3 sessions"},
		},
		"secure_link": {
			[]string{"secure_link", "--check", "link", "--node", "links", "--url", "https://tv.example.com/hls/bbc/index.m3u8?a=b", "--ip", "2001:db8::7"},
			[]string{"--node", "links", "--ip", "2001:db8::7"},
			[]string{"looks like secure_link", "check link (secure_link) accepts it for stream bbc from 2001:db8::7", "check ministra (secure_link) does not know"},
		},
		"Ministra's link": {
			[]string{"secure_link", "--check", "ministra", "--url", "/play/a001/playlist.m3u8"},
			[]string{"--check", "ministra", "--stream", "a001"},
			[]string{"looks like secure_link", "check ministra (secure_link) accepts it for stream a001"},
		},
		"the older form": {
			[]string{"secure_link", "--check", "gone", "--url", "/p/bbc/index.m3u8", "--stream", "bbc"},
			[]string{"--node", "old"},
			[]string{"check gone (secure_link) accepts it for stream bbc"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := run(t, append([]string{"token", "sign", "--policy", file}, c.sign...)...)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if code != 0 || len(lines) != 2 {
				t.Fatalf("sign = %d, %q %s", code, lines, errs)
			}
			code, told, errs := run(t, append([]string{"token", "inspect", "--policy", file, lines[1]}, c.inspect...)...)
			for _, says := range c.says {
				if code != 0 || !strings.Contains(told, says) {
					t.Errorf("inspect = %d, want 0 and %q:\n%s%s", code, says, told, errs)
				}
			}
			if strings.Contains(out+told+errs, hidden) {
				t.Errorf("the secret is shown:\n%s%s", out, told)
			}
			code, told, _ = run(t, "token", "inspect", lines[1])
			if code != 0 || !strings.Contains(told, "looks like") || strings.Contains(told, "check ") {
				t.Errorf("inspect without a policy = %d:\n%s", code, told)
			}
		})
	}
}

func TestInspectRefuses(t *testing.T) {
	t.Parallel()
	file := tokenPolicy(t)
	_, out, _ := run(t, "token", "sign", "securetoken", "--policy", file, "--stream", "bbc", "--ip", "203.0.113.7")
	tok, _, _ := strings.Cut(out, "\n")
	code, told, errs := run(t, "token", "inspect", tok, "--policy", file, "--check", "site", "--stream", "cnn", "--ip", "203.0.113.7")
	if code != 1 || !strings.Contains(told, "refuses it for stream cnn from 203.0.113.7: bad_token") {
		t.Errorf("another stream = %d:\n%s%s", code, told, errs)
	}
	code, told, errs = run(t, "token", "inspect", tok, "--policy", file, "--stream", "bbc", "--ip", "203.0.113.7", "--json")
	var report struct {
		Schemes []struct{ Type string }
		Checks  []opinion
	}
	if err := json.Unmarshal([]byte(told), &report); err != nil || code != 0 || len(report.Schemes) != 1 || len(report.Checks) == 0 {
		t.Fatalf("JSON = %d, %v:\n%s%s", code, err, told, errs)
	}
	if code, _, errs := run(t, "token", "inspect", tok, "--policy", file, "--check", "nobody"); code != 1 || !strings.Contains(errs, "nobody") {
		t.Errorf("a check that is not there = %d: %s", code, errs)
	}
	if code, told, _ := run(t, "token", "inspect", "abc"); code != 0 || !strings.Contains(told, "form of no scheme") {
		t.Errorf("no token = %d: %s", code, told)
	}
}

func TestInspectReadsStandardInput(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	in := strings.NewReader("Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0.eyJzdWIiOiJ1c2VyNDIiLCJleHAiOjE5MDAwMDAwMDAsInBhdGgiOiJsaXZlL2NoMSJ9.rdWWlzvpWs0XcS-KpOjxyySASvIsxPnpYVAHOJWeG0M\n")
	code := Main(t.Context(), []string{"token", "inspect", "-"}, App{Out: &out, Err: &errs, In: in})
	if code != 0 || !strings.Contains(out.String(), "key id         k1") || !strings.Contains(out.String(), "user42") {
		t.Errorf("inspect - = %d:\n%s%s", code, out.String(), errs.String())
	}
	if code, _, errs := run(t, "token", "inspect", "-"); code != 1 || !strings.Contains(errs, "no token") {
		t.Errorf("empty input = %d: %s", code, errs)
	}
}

func TestSignSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	file := tokenPolicy(t)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown scheme":        {[]string{"md5", "--stream", "x"}, "securetoken, jwt, secure_link"},
		"several checks":        {[]string{"secure_link", "--stream", "x"}, "--check gone or --check link"},
		"check of another":      {[]string{"jwt", "--check", "site", "--stream", "x"}, "of type securetoken"},
		"no check":              {[]string{"jwt", "--check", "none", "--stream", "x"}, `no check "none"`},
		"no node":               {[]string{"jwt", "--node", "none", "--stream", "x"}, `no node "none"`},
		"nothing to watch":      {[]string{"jwt"}, "--stream NAME"},
		"no address":            {[]string{"securetoken", "--stream", "x"}, "address is needed"},
		"what cannot be said":   {[]string{"jwt", "--stream", "x", "--device", "d"}, "name no device"},
		"bad address":           {[]string{"jwt", "--url", "hls"}, "no address of a stream"},
		"stream not in the URL": {[]string{"jwt", "--node", "links", "--url", "/x"}, "give it with --stream"},
		"key that is not there": {[]string{"jwt", "--stream", "x", "--key", "/nonexistent/key"}, "private key"},
		"bad IP":                {[]string{"jwt", "--stream", "x", "--ip", "home"}, "no address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := run(t, append([]string{"token", "sign", "--policy", file}, c.args...)...)
			if code != 1 || !strings.Contains(errs, c.says) {
				t.Errorf("sign = %d, want 1 and %q:\n%s%s", code, c.says, out, errs)
			}
		})
	}
	code, out, _ := run(t, "token", "sign", "jwt", "--policy", file, "--node", "bearer", "--stream", "bbc")
	if lines := strings.Split(out, "\n"); code != 0 || len(lines) < 3 || lines[1] != "/hls/bbc/index.m3u8" || !strings.HasPrefix(lines[2], "Authorization: Bearer eyJ") {
		t.Errorf("a token for a header = %d:\n%s", code, out)
	}
}
